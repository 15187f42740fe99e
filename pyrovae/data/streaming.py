"""Data larger than memory: rows read while training, from a memory-mapped array or by workers of a torch Dataset."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SAMPLE = (
    2048  # rows that are held in memory: the structure of a program, its support and metrics are seen on them
)


class MappedRows(torch.utils.data.Dataset[Tensor]):
    """Rows of a `.npy` file as float32, read where they are asked for; the file is never in memory as a whole.

    Args:
        path: of an array `[N, *event]` of real numbers.
        scale: factor on the values: 1/255 for bytes that stand for [0, 1].

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that is no such array, or is cut short.
    """

    def __init__(self, path: str | os.PathLike[str], scale: float = 1.0) -> None:
        self.path, self.scale = Path(path), scale
        if not self.path.is_file():
            raise FileNotFoundError(f"expected a .npy file at {self.path}, found none")
        self._array = self._open()
        if self._array.ndim < 2 or self._array.dtype.kind not in "buif" or 0 in self._array.shape:
            raise ValueError(
                f"expected real numbers of shape [N, *event] in {self.path}, got {self._array.dtype} of shape "
                f"{self._array.shape}"
            )

    def _open(self) -> np.ndarray[Any, Any]:
        try:
            found: np.ndarray[Any, Any] = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise ValueError(
                f"expected a readable .npy array in {self.path}, got a file that is cut short or no array ({error})"
            ) from error
        return found

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: int) -> Tensor:
        return self.rows(np.asarray([index]))[0]

    def __getitems__(self, indices: list[int]) -> Tensor:
        """A whole batch by one read; what `DataLoader` asks for."""
        return self.rows(np.asarray(indices))

    def rows(self, indices: np.ndarray[Any, Any]) -> Tensor:
        """Rows at `indices`, float32."""
        picked = torch.from_numpy(self._array[indices])
        picked = picked.to(torch.float32)
        return picked if self.scale == 1.0 else picked.mul_(self.scale)

    def __getstate__(self) -> dict[str, Any]:
        # A worker maps the file itself; the array would travel as a copy of all of it.
        return {k: v for k, v in self.__dict__.items() if k != "_array"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._array = self._open()

    def __repr__(self) -> str:
        return (
            f"MappedRows({str(self.path)!r}, {self._array.dtype} {self._array.shape}, scale={self.scale:g})"
        )


class Stream:
    """Training data that are read batch by batch, ahead of the steps: for `pv.fit` and `pv.Trainer`.

    The order is drawn as for data in memory, from (seed, epoch): the same rows in the same batches.
    What is looked at before training (structure, support) and the training metrics are of the first
    2048 rows.

    Args:
        source: a path of a `.npy` array `[N, *event]` (memory-mapped), or a torch Dataset with a length
            whose items are tensors `[*event]` (or tuples that begin with one).
        valid: rows to validate on, in memory.
        workers: processes that read ahead; 0 reads in this one. A mapped file on a local disk is served
            by 0; decoding images needs some.
        scale: factor on the values of a mapped array: 1/255 for bytes that stand for [0, 1].
        device: where batches go.

    Raises:
        FileNotFoundError, ValueError: for a file that is no array of rows; a Dataset without a length.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | torch.utils.data.Dataset[Any],
        valid: Tensor | None = None,
        *,
        workers: int = 0,
        scale: float = 1.0,
        device: torch.device | str = "cpu",
    ) -> None:
        if workers < 0:
            raise ValueError(f"expected workers >= 0, got {workers}")
        given: Any = source
        self.dataset: Any = MappedRows(given, scale) if isinstance(given, str | os.PathLike) else given
        if isinstance(self.dataset, torch.utils.data.IterableDataset) or not hasattr(self.dataset, "__len__"):
            raise ValueError(
                "expected a torch Dataset with a length, got an iterable one, which has no order"
            )
        if len(self.dataset) < 1:
            raise ValueError("expected at least one datum, got an empty Dataset")
        self.workers, self.device = workers, torch.device(device)
        few = list(range(min(SAMPLE, len(self.dataset))))
        self.sample = self.get(few)
        self.valid = None if valid is None else valid.to(self.device)

    def __len__(self) -> int:
        return len(self.dataset)

    def get(self, indices: list[int]) -> Tensor:
        """Rows, read here and now."""
        if hasattr(self.dataset, "__getitems__"):
            return stacked(self.dataset.__getitems__(indices)).to(self.device)
        return stacked([self.dataset[i] for i in indices]).to(self.device)

    @property
    def hash(self) -> str:
        """Hash of the number of rows and of the sample: all of the data are not read for it."""
        digest = hashlib.sha256(f"{len(self)} {tuple(self.sample.shape)}".encode())
        digest.update(self.sample.cpu().numpy().data)
        return digest.hexdigest()

    def batches(self, order: Callable[[], Iterator[list[int]]]) -> Iterator[Tensor]:
        """Rows of the index lists of `order()`, in their order, read ahead by the workers."""
        sampler: Any = _Order(order)
        loader = torch.utils.data.DataLoader(
            self.dataset,
            batch_sampler=sampler,
            num_workers=self.workers,
            collate_fn=stacked,
            pin_memory=self.device.type == "cuda",
            prefetch_factor=4 if self.workers else None,
            generator=torch.Generator(),  # its seeds for the workers are not of the run's noise
        )
        for rows in loader:
            yield rows.to(self.device, non_blocking=True)

    def __repr__(self) -> str:
        return f"Stream({self.dataset!r}, {len(self):,} rows, workers={self.workers})"


class _Order:
    def __init__(self, order: Callable[[], Iterator[list[int]]]) -> None:
        self.order = order

    def __iter__(self) -> Iterator[list[int]]:
        return self.order()


def stacked(items: Tensor | Sequence[Any]) -> Tensor:
    """Items of a Dataset as one float32 tensor `[n, *event]`.

    Raises:
        TypeError: for items that are no tensors or arrays.
    """
    if not isinstance(items, Tensor):
        events = [i[0] if isinstance(i, tuple | list) else i for i in items]
        if not all(isinstance(e, Tensor | np.ndarray) for e in events):
            raise TypeError(
                f"expected items that are tensors, or tuples that begin with one, got {type(events[0]).__name__}"
            )
        items = torch.stack([torch.as_tensor(e) for e in events])
    return items.to(torch.float32)
