"""Training data as the loop sees them: tensors with one row per datum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ...data.streaming import Stream
from ...programs import Marked, check_arguments, tensors_in
from ...programs.idioms.dtypes import cast


@runtime_checkable
class DataLike(Protocol):
    """Data set of `pv.data.load`, as far as training needs it."""

    train: Tensor
    valid: Tensor

    def epoch(self, epoch: int, seed: int | None = None) -> Tensor:
        """The training data of an epoch (drawn afresh under dynamic binarisation)."""
        ...


class Source:
    """Rows of `(x, *context)` to train on, and rows to validate on (or none).

    Attributes:
        train, valid: x, a tensor, and its context: tensors with one row per datum; anything else, marked or not, as
            for `pv.log_weights`.
        dataset: what they came from, if it was a data set.
        stream: where they are read from while training; `train` is then a sample of them.
        num_data: all rows to train on.

    Raises:
        TypeError, ValueError: for data that are no tensor with one row per datum, all finite.
    """

    def __init__(self, data: Any, valid: Any = None) -> None:
        self.dataset = data if isinstance(data, DataLike) else None
        self.stream = data if isinstance(data, Stream) else None
        if self.stream is not None:
            self.train: tuple[Any, ...] = _rows(self.stream.sample)
            valid = self.stream.valid if valid is None else valid
        else:
            self.train = _rows(data if self.dataset is None else arguments_of(self.dataset, "train"))
        if self.dataset is not None and valid is None:
            valid = arguments_of(self.dataset, "valid")
        self.valid = None if valid is None else _rows(valid)
        for rows in (self.train, self.valid or ()):
            for i, value in enumerate(rows):
                if i == 0 or isinstance(value, Tensor):
                    # NaN in x may be masked, which is looked at when the program runs on all of it.
                    check_arguments(value, missing=i == 0 and self.stream is None)
                for tensor in tensors_in(value):
                    if tensor.device != self.train[0].device and not isinstance(value, PackedSequence):
                        raise ValueError(
                            f"expected all data on one device, {self.train[0].device}, got some on {tensor.device}; "
                            f"try .to({str(self.train[0].device)!r})"
                        )
                if isinstance(value, Tensor) and (value.dim() == 0 or len(value) != len(rows[0])):
                    raise ValueError(
                        f"expected {len(rows[0])} rows of context, as of x, got {tuple(value.shape)}; try "
                        "pv.shared(tensor) for what all data share"
                    )
        self.num_data = len(self.train[0]) if self.stream is None else len(self.stream)

    @property
    def plain(self) -> bool:
        """Whether all of it is tensors with one row per datum."""
        return all(isinstance(t, Tensor) for t in self.train)

    def cast(self, dtype: torch.dtype) -> None:
        """Takes real numbers as `dtype`."""
        self.train = cast(self.train, dtype)
        self.valid = None if self.valid is None else cast(self.valid, dtype)

    @property
    def given(self) -> tuple[Any, ...]:
        """All that was handed over, of the other splits too."""
        more = () if self.dataset is None else tuple(getattr(self.dataset, "__dict__", {}).values())
        return self.train, self.valid, more

    def epoch(self, epoch: int, seed: int) -> tuple[Any, ...]:
        """`(x, *context)` of an epoch."""
        if self.dataset is None:
            return self.train
        return (self.dataset.epoch(epoch, seed).to(self.train[0].dtype), *self.train[1:])


def arguments_of(data: DataLike, split: str) -> tuple[Any, ...]:
    """`(x, *context)` of a split; of data sets of other makers, which know no context, x."""
    own = getattr(data, "arguments", None)
    return (getattr(data, split),) if own is None else own(split)


def _rows(data: Any) -> tuple[Any, ...]:
    if isinstance(data, Tensor):
        return (data,)
    if isinstance(data, Sequence) and data:
        first, *context = data
        if isinstance(first, Marked) and first.per_datum:
            first = first.value
        if isinstance(first, Tensor):
            tensors = (v.value if isinstance(v, Marked) and v.per_datum else v for v in context)
            return (
                first,
                *(t if isinstance(t, Tensor) else v for t, v in zip(tensors, context, strict=True)),
            )
    raise TypeError(
        "expected a data set of pyrovae.data.load, a tensor or a tuple (x, *context) whose x is a tensor, got "
        f"{type(data).__name__}"
    )
