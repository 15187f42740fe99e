"""Labels as integers, be they given as numbers or as words."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

Classes = tuple[str, ...]


def to_codes(labels: dict[str, Any]) -> tuple[dict[str, Any], Classes | None]:
    """Labels in words as integers, the same in all splits: their places in alphabetical order.

    Returns:
        The labels, as they are where they are no words; and the words in their order, or None.
    """
    arrays = {split: y if isinstance(y, Tensor) else _array(y) for split, y in labels.items()}
    if not arrays or not all(isinstance(y, np.ndarray) and y.dtype.kind == "U" for y in arrays.values()):
        return arrays, None
    words = np.unique(np.concatenate([y.ravel() for y in arrays.values()]))
    return {s: np.searchsorted(words, y) for s, y in arrays.items()}, tuple(words.tolist())


def _array(y: Any) -> Any:
    values = np.asarray(y.to_numpy() if hasattr(y, "to_numpy") else y)
    words = values.dtype.kind == "O" and values.size and all(isinstance(v, str) for v in values.ravel())
    return values.astype(str) if words else values
