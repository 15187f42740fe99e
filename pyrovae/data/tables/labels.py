"""Label columns of a table: which one it is where nobody says, and its values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .columns import LABEL_NAMES, Column, Declared
from .values import is_number, present, values_of, word_of


def likely_label(frame: Any, given: Declared) -> str | None:
    """The column called "label" or "labels" whose role is not given, if it holds words or whole numbers."""
    own = {str(c): c for c in frame.columns}
    found = [n for n in own if n.lower() in LABEL_NAMES and n not in given]
    if len(found) != 1 or len(own) < 2 or "label" in {role for role, _ in given.values()}:
        return None
    values = present(values_of(frame[own[found[0]]]))
    return found[0] if values and _are_classes(values) else None


def _are_classes(held: Sequence[Any]) -> bool:
    """Whether values are words or whole numbers."""
    return all(not is_number(v) or (np.isfinite(v) and v == int(v)) for v in held)


def read_labels(values: np.ndarray[Any, Any], column: Column, name: str) -> np.ndarray[Any, Any]:
    """Labels of rows, None where missing: words, or whole numbers."""
    if column.words is not None:
        return np.array([None if v is None else word_of(v) for v in values], dtype=object)
    held = present(values)
    odd = next((v for v in held if not is_number(v) or not _are_classes([v])), None)
    if odd is not None:
        raise ValueError(f"expected whole numbers in the label column {column.name!r} of {name}, got {odd!r}")
    below = sorted({int(v) for v in held if v < 0})
    if len(below) > 1 or (below and len(held) < len(values)):
        raise ValueError(
            f"expected labels >= 0 in the column {column.name!r} of {name}, one number below 0 standing for those that "
            f"are not known, got {below[:4]} and {len(values) - len(held)} empty cells; try words for the classes"
        )
    return np.array([None if v is None else int(v) for v in values], dtype=object)
