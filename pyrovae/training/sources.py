"""Training data as the loop sees them: tensors with one row per datum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from ..data.streaming import Stream
from ..programs import Marked, check_arguments


@runtime_checkable
class DataLike(Protocol):
    """What `pv.data.load` returns, as far as training needs it."""

    train: Tensor
    valid: Tensor

    def epoch(self, epoch: int, seed: int | None = None) -> Tensor:
        """The training data of an epoch (drawn afresh under dynamic binarisation)."""
        ...


class Source:
    """Rows of `(x, *context)` to train on, and rows to validate on (or none).

    Attributes:
        train, valid: those rows.
        dataset: what they came from, if it was a data set.
        stream: where they are read from while training; `train` is then a sample of them.
        num_data: all rows to train on.

    Raises:
        TypeError, ValueError: for data that are no tensors with one row per datum, all finite.
    """

    def __init__(self, data: Any, valid: Any = None) -> None:
        self.dataset = data if isinstance(data, DataLike) else None
        self.stream = data if isinstance(data, Stream) else None
        if self.stream is not None:
            self.train: tuple[Tensor, ...] = (self.stream.sample,)
            valid = self.stream.valid if valid is None else valid
        else:
            self.train = (self.dataset.train,) if self.dataset is not None else _rows(data)
        if self.dataset is not None and valid is None:
            valid = self.dataset.valid
        self.valid = None if valid is None else _rows(valid)
        for rows in (self.train, self.valid or ()):
            for i, tensor in enumerate(rows):
                if i == 0 or isinstance(tensor, Tensor):
                    check_arguments(tensor)
                if isinstance(tensor, Tensor) and tensor.device != self.train[0].device:
                    raise ValueError(
                        f"expected all data on one device, {self.train[0].device}, got some on {tensor.device}; try "
                        f".to({str(self.train[0].device)!r})"
                    )
                if len(tensor) != len(rows[0]):
                    raise ValueError(f"expected {len(rows[0])} rows of context, as of x, got {len(tensor)}")
        self.num_data = len(self.train[0]) if self.stream is None else len(self.stream)

    def epoch(self, epoch: int, seed: int) -> tuple[Tensor, ...]:
        """`(x, *context)` of an epoch."""
        return (self.dataset.epoch(epoch, seed),) if self.dataset is not None else self.train


def _rows(data: Any) -> tuple[Tensor, ...]:
    if isinstance(data, Tensor):
        return (data,)
    if isinstance(data, Sequence):
        if any(isinstance(t, Marked) and not t.per_datum for t in data):
            raise ValueError(
                "expected data with one row per datum, got context marked pv.shared; try functools.partial, or a "
                "buffer of the model's module, for what all data share"
            )
        data = [t.value if isinstance(t, Marked) else t for t in data]
    if isinstance(data, Sequence) and data and all(isinstance(t, Tensor) for t in data):
        return tuple(data)
    raise TypeError(
        f"expected a data set of pyrovae.data.load, a tensor or a tuple (x, *context) of tensors, got "
        f"{type(data).__name__}"
    )
