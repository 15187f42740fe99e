"""Labels as integers, be they given as numbers or as words, -1 where they are missing."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from ...text import meant
from ..tables.values import Written, word_of
from .frames import is_frame

Classes = tuple[str, ...]
MISSING = -1


def label_taken(array: Any, labels: Any, column: str | None, name: str) -> tuple[Any, Any]:
    """A table without its column of labels, and that column; as they are where no column is named.

    Raises:
        ValueError: no table, no such column, or labels beside it.
    """
    if column is None:
        return array, labels
    if not is_frame(array):
        raise ValueError(
            f"expected a table with the column {column!r} of labels, got {name} without names; try a data frame, or "
            "labels beside it ({'x': ..., 'y': ...})"
        )
    if labels is not None:
        raise ValueError(f"expected labels of {name} in a column or beside it, got both")
    own = {str(c): c for c in array.columns}
    if column not in own:
        hint = meant(column, own) or f"it has {', '.join(list(own)[:12])}"
        raise ValueError(f"expected the column {column!r} of labels in {name}, got it without; {hint}")
    return array[[c for s, c in own.items() if s != column]], array[own[column]]


def to_codes(labels: dict[str, Any]) -> tuple[dict[str, Any], Classes | None]:
    """Labels in words as integers, the same in all splits: their places in alphabetical order.

    Returns:
        The labels, those that are no words as they are, -1 where one is missing (None, NaN); and the words in their
        order, or None.
    """
    arrays = {split: y if isinstance(y, Tensor) else as_array(y) for split, y in labels.items()}
    held = {s: y[~_absent(y)] for s, y in arrays.items() if not isinstance(y, Tensor)}
    some = [y for y in held.values() if y.size]
    if len(held) < len(arrays) or not some or not all(map(_are_words, some)):
        return {s: y if isinstance(y, Tensor) else _numbers(y) for s, y in arrays.items()}, None
    words = np.unique(np.concatenate([y.astype(str) for y in held.values()]))
    codes = {s: np.searchsorted(words, y.astype(str)) for s, y in held.items()}
    return {s: _filled(as_array(y), codes[s]) for s, y in labels.items()}, tuple(words.tolist())


def as_array(y: Any) -> np.ndarray[Any, Any]:
    """Labels as an array, of objects where they are a list; codes of a file as they are written there."""
    values = y.to_numpy() if hasattr(y, "to_numpy") else y
    if (
        isinstance(values, np.ndarray)
        and values.dtype.kind == "O"
        and any(isinstance(v, Written) for v in values.flat)
    ):
        values = np.array([v if is_missing(v) else word_of(v) for v in values], dtype=object)
    # A list with a missing value stays what it is: numpy makes the word "nan" of it, or "None".
    return np.array(values, dtype=object) if isinstance(values, list | tuple) else np.asarray(values)


def _are_words(held: np.ndarray[Any, Any]) -> bool:
    return held.dtype.kind == "U" or (held.dtype.kind == "O" and all(isinstance(v, str) for v in held))


def _absent(y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if y.dtype.kind != "O":
        return np.isnan(y) if y.dtype.kind == "f" else np.zeros(y.shape, dtype=bool)
    return np.vectorize(is_missing, otypes=[bool])(y)


def is_missing(value: Any) -> bool:
    """Whether a label is None, NaN, or what pandas has for it, which is equal to nothing."""
    same = value is not None and (isinstance(value, str) or value == value)
    return not (same is True or (isinstance(same, np.bool_) and bool(same)))


def _numbers(y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Whole numbers as integers where some are missing, which makes floats or objects of them; else as they are."""
    gone = _absent(y)
    held = y[~gone]
    if y.dtype.kind == "O" and held.size and all(isinstance(v, bool | int | np.integer) for v in held):
        return _filled(y, held.astype(np.int64))
    if y.dtype.kind == "f" and gone.any() and bool((held == np.floor(held)).all()):
        return _filled(y, held.astype(np.int64))
    return y


def _filled(y: np.ndarray[Any, Any], held: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    found = np.full(y.shape, MISSING, dtype=np.int64)
    found[~_absent(y)] = held
    return found
