"""Rows of an array on the disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


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

    def wide(self, indices: np.ndarray[Any, Any]) -> Tensor | None:
        """Rows at `indices` in float64, where the file is so; else None."""
        if self._array.dtype != np.float64:
            return None
        return torch.from_numpy(self._array[indices]) * self.scale

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
