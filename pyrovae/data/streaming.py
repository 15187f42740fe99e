"""Data larger than memory: rows read while training, from a memory-mapped array or by workers of a torch Dataset."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checking import KINDS, as_tensors
from ..devices import as_tensor
from ..programs import Marked, shared, tensors_in
from ..programs.arguments.marks import change, num_rows, others_in, wrong_rows
from ..programs.plates import take
from .mapped_rows import MappedRows
from .rounding import rounded

# Rows that are held in memory: the structure of a program, its support and metrics are seen on them.
SAMPLE = 2048


class Stream:
    """Training data that are read batch by batch, ahead of the steps: for `pv.fit` and `pv.Trainer`.

    The order is drawn as for data in memory, from (seed, epoch): the same rows in the same batches.
    What is looked at before training (structure, support) and the training metrics are of the first
    2048 rows.

    Args:
        source: a path of a `.npy` array `[N, *event]` (memory-mapped), or a torch Dataset with a length
            whose items are tensors `[*event]` (or tuples that begin with one).
        valid: rows to validate on, in memory: x, or `(x, *context)`.
        context: what programs take after x, in memory, as for `pv.fit`: tensors have one row per datum; what all
            data share is marked by `pv.shared`, and rows in containers or lists by `pv.per_datum`.
        parts: leading parts of a Dataset's items that programs take: 2 for items `(x, label)`. They come before
            `context`; further parts are left out.
        workers: processes that read ahead; 0 reads in this one. A mapped file on a local disk is served
            by 0; decoding images needs some.
        scale: factor on the values of a mapped array: 1/255 for bytes that stand for [0, 1].
        device: where batches go.

    Raises:
        FileNotFoundError, ValueError: for a file that is no array of rows; rows of float64 whose first 2048 float32
            does not tell apart (they are held in float32); a Dataset without a length; context
            with other than N rows, or of which it does not show whether it is per datum.
        TypeError: for items that are no tensors, or of fewer parts.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | torch.utils.data.Dataset[Any],
        valid: Any = None,
        *,
        context: Sequence[Any] = (),
        parts: int = 1,
        workers: int = 0,
        scale: float = 1.0,
        device: torch.device | str = "cpu",
    ) -> None:
        if workers < 0 or parts < 1:
            raise ValueError(f"expected workers >= 0 and parts >= 1, got {workers} and {parts}")
        given: Any = source
        self.dataset: Any = MappedRows(given, scale) if isinstance(given, str | os.PathLike) else given
        if isinstance(self.dataset, torch.utils.data.IterableDataset) or not hasattr(self.dataset, "__len__"):
            raise ValueError(
                "expected a torch Dataset with a length, got an iterable one, which has no order"
            )
        if len(self.dataset) < 1:
            raise ValueError("expected at least one datum, got an empty Dataset")
        if parts > 1 and isinstance(self.dataset, MappedRows):
            raise ValueError(f"expected parts=1 for an array, got {parts}; try context=(labels,)")
        self.workers, self.parts, self.device = workers, parts, torch.device(device)
        if not isinstance(context, tuple | list):
            raise TypeError(
                f"expected context to be a tuple, got {type(context).__name__}; try context=(labels,)"
            )
        self.context = tuple(self._marked(as_tensors(c)) for c in context)
        few = torch.arange(min(SAMPLE, len(self.dataset)), device="cpu")
        wide = _wide(self.dataset, few.tolist())
        if wide is not None:  # refuses those that float32 does not tell apart
            rounded({"sample": wide}, None, f"the first {len(few)} rows of {type(self.dataset).__name__}")
        x, *read = self.read(few.tolist())
        self.sample: tuple[Any, ...] = (x, *read, *(_rows(c, few, len(self)) for c in self.context))
        self.valid = None if valid is None else self._moved(KINDS["valid"](valid, "valid", None))

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, indices: list[int]) -> tuple[Tensor, ...]:
        """Rows of the source, x and further `parts`, read here and now."""
        whole = hasattr(self.dataset, "__getitems__")
        items = self.dataset.__getitems__(indices) if whole else [self.dataset[i] for i in indices]
        return tuple(t.to(self.device) for t in stacked(items, self.parts))

    def beside(self, indices: Tensor) -> tuple[Any, ...]:
        """The context in memory that belongs to these rows, without marks."""
        return tuple(take(c, indices, len(self)) for c in self.context)

    @property
    def hash(self) -> str:
        """Hash of the number of rows, the sample and the context: all of the data are not read for it."""
        digest = hashlib.sha256(f"{len(self)} {tuple(self.sample[0].shape)}".encode())
        digest.update(self.sample[0].cpu().numpy().data)
        for tensor in tensors_in((self.sample[1 : self.parts], self.context)):
            digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        digest.update(others_in(self.context).encode() if self.context else b"")
        return digest.hexdigest()

    def batches(self, order: Callable[[], Iterator[list[int]]]) -> Iterator[tuple[Tensor, ...]]:
        """Rows of the index lists of `order()`, as `read`, in their order, read ahead by the workers."""
        sampler: Any = _Order(order)
        loader = torch.utils.data.DataLoader(
            self.dataset,
            batch_sampler=sampler,
            num_workers=self.workers,
            collate_fn=_Stack(self.parts),
            pin_memory=self.device.type == "cuda",
            prefetch_factor=4 if self.workers else None,
            generator=torch.Generator(),  # its seeds for the workers are not of the run's noise
        )
        for rows in loader:
            yield tuple(t.to(self.device, non_blocking=True) for t in rows)

    def _moved(self, value: Any) -> Any:
        def leaf(v: Any) -> Any:
            if isinstance(v, Marked):
                return Marked(self._moved(v.value), v.per_datum)
            return v.to(self.device) if isinstance(v, Tensor) else v

        return change(value, leaf)

    def _marked(self, value: Any) -> Any:
        """Context with each part marked: what has N rows has to say whose they are, unless it is a tensor."""
        n, value = len(self), self._moved(value)
        if isinstance(value, Tensor):
            value = Marked(value, True)
        whose: list[Any] = []
        change(value, whose.append, items=n)
        for leaf in whose:
            if not isinstance(leaf, Marked):
                if num_rows(leaf) == n:
                    raise ValueError(
                        f"expected a mark on what has N = {n} rows in a container or a list, got none; try "
                        "pv.per_datum(...) or pv.shared(...)"
                    )
                continue
            wrong = wrong_rows(leaf.value, n) if leaf.per_datum else []
            if wrong:
                raise ValueError(
                    f"expected context with one row for each of the {n} data, got {wrong[0]}; try pv.shared(...) for "
                    "what all data share"
                )
        return change(value, lambda v: v if isinstance(v, Marked) else shared(v), items=n)

    def __repr__(self) -> str:
        return f"Stream({self.dataset!r}, {len(self):,} rows, workers={self.workers})"


def _wide(dataset: Any, indices: list[int]) -> Tensor | None:
    """Rows of x as they are, where they are float64; None where they are not."""
    if isinstance(dataset, MappedRows):
        return dataset.wide(np.asarray(indices))
    first = [
        item[0] if isinstance(item, tuple | list) else item for item in (dataset[i] for i in indices[:1])
    ]
    if not all(isinstance(x, Tensor | np.ndarray) and as_tensor(x).dtype == torch.float64 for x in first):
        return None
    items = [dataset[i] for i in indices]
    return _column([item[0] if isinstance(item, tuple | list) else item for item in items], first=True)


class _Order:
    def __init__(self, order: Callable[[], Iterator[list[int]]]) -> None:
        self.order = order

    def __iter__(self) -> Iterator[list[int]]:
        return self.order()


class _Stack:
    """`stacked` for a number of parts; a worker gets it by itself."""

    def __init__(self, parts: int) -> None:
        self.parts = parts

    def __call__(self, items: Tensor | Sequence[Any]) -> tuple[Tensor, ...]:
        return stacked(items, self.parts)


def _rows(value: Any, indices: Tensor, num_data: int) -> Any:
    """Rows of context, with its marks."""

    def leaf(v: Any) -> Any:
        return Marked(take(v, indices, num_data), v.per_datum) if isinstance(v, Marked) else v

    return change(value, leaf)


def stacked(items: Tensor | Sequence[Any], parts: int = 1) -> tuple[Tensor, ...]:
    """Leading parts of a Dataset's items, each as one tensor `[n, *event]`: real numbers and x as float32.

    Raises:
        TypeError: for items that are no tensors or arrays, or of fewer parts.
    """
    if isinstance(items, Tensor):
        columns: list[Any] = [items]
    else:
        short = [i for i in items if (len(i) if isinstance(i, tuple | list) else 1) < parts]
        if short:
            raise TypeError(f"expected items of at least {parts} parts, got {type(short[0]).__name__}")
        tuples = [tuple(i)[:parts] if isinstance(i, tuple | list) else (i,) for i in items]
        columns = list(zip(*tuples, strict=True))
    if len(columns) < parts:
        raise TypeError(f"expected items of at least {parts} parts, got tensors")
    x, *others = (c if isinstance(c, Tensor) else _column(c, first=i == 0) for i, c in enumerate(columns))
    return (x.to(torch.float32), *(o.to(torch.float32) if o.is_floating_point() else o for o in others))


def _column(values: Sequence[Any], first: bool) -> Tensor:
    numbers = Tensor | np.ndarray if first else Tensor | np.ndarray | np.number | int | float
    if not all(isinstance(v, numbers) for v in values):
        raise TypeError(
            f"expected items that are tensors, or tuples that begin with one, got {type(values[0]).__name__}"
        )
    return torch.stack([as_tensor(v) for v in values])
