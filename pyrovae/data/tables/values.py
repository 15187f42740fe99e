"""Values of a table's columns as plain objects, None where missing."""

from __future__ import annotations

from typing import Any

import numpy as np


def values_of(series: Any) -> np.ndarray[Any, Any]:
    """Values of a column as an array of objects: None where missing, else bools, numbers or text."""
    gone = np.asarray(series.isna() if hasattr(series, "isna") else series.is_null(), dtype=bool)
    raw = series.tolist() if hasattr(series, "tolist") else series.to_list()
    found = np.empty(len(raw), dtype=object)
    for i, value in enumerate(raw):
        found[i] = None if gone[i] or value != value else value  # polars' NaN is no null
    return found


def present(values: np.ndarray[Any, Any]) -> list[Any]:
    """Those that are there."""
    return [v for v in values if v is not None]


def is_number(value: Any) -> bool:
    """Whether a value is a number, and no bool."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool | np.bool_)


def word_of(value: Any) -> str:
    """Category of a value: text as it is, whole numbers without a point."""
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if is_number(value) and np.isfinite(value) and value == int(value):
        return str(int(value))
    return str(value)
