"""Values of a table's columns as plain objects, None where missing."""

from __future__ import annotations

import re
from typing import Any, Self

import numpy as np

# Text of a number; with zeros before it, it is a code.
_NUMBER = re.compile(r"[+-]?(?:(0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"[+-]?[0-9]+")


class Written(float):
    """A number of a file that is not what was written there, as of 007 and of ids with many digits."""

    text: str

    def __new__(cls, value: float, text: str) -> Self:
        """The number with its text."""
        found = super().__new__(cls, value)
        found.text = text
        return found


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
    """Category of a value: text as it is, whole numbers without a point; text of a number or a bool is one.

    So that it does not depend on what else stands in the column: of a file, 1.50 is text beside words alone.

    Example:
        >>> word_of("1.50"), word_of(2.0), word_of("007"), word_of("TRUE")
        ('1.5', '2', '007', 'True')
    """
    if isinstance(value, Written):
        return value.text
    if isinstance(value, str):
        if value.lower() in ("true", "false"):
            return value.capitalize()
        if _NUMBER.fullmatch(value):
            return str(int(value)) if _WHOLE.fullmatch(value) else word_of(float(value))
        return value
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if is_number(value) and np.isfinite(value) and value == int(value):
        return str(int(value))
    return str(value)
