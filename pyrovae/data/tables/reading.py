"""Columns of a frame as numbers, by their roles; roles guessed where they are not given."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...text import meant
from ..sources.frames import names_of
from .columns import NAMED, Column, Declared
from .labels import likely_label, read_labels
from .values import Written, is_number, present, values_of, word_of

MOST = 0.5  # share of distinct words in the rows, from which they are names of rows and no categories
FEW = 20  # words that are always categories


def table_of(frame: Any, given: Declared, name: str) -> tuple[Column, ...]:
    """Roles of the columns of a frame: those that are given, and guesses for the others.

    Raises:
        ValueError: names that are not columns, no column left for x, several labels, or a column whose role cannot
            be guessed.
    """
    names = names_of(frame, name)
    for one in given:
        if one not in names:
            hint = meant(one, names) or "try one of these"
            raise ValueError(
                f"expected the names of columns of {name} ({', '.join(names[:8])}), got {one!r}; {hint}"
            )
    likely = likely_label(frame, given)
    if likely is not None:
        given = given | {likely: ("label", None)}
    found = []
    for column in frame.columns:
        role, order = given.get(str(column), (None, None))
        values = values_of(frame[column])
        guessed = role is None or str(column) == likely
        if role is None:
            role = _guess(values, f"column {str(column)!r} of {name}")
        found.append(Column(str(column), role, _words(values, role, order, str(column), name), guessed))
    if sum(c.role == "label" for c in found) > 1:
        raise ValueError(
            f"expected one label column at most in {name}, got {[c.name for c in found if c.role == 'label']}"
        )
    if not any(c.is_feature for c in found):
        raise ValueError(
            f"expected at least one column of {name} that is neither label nor ignored, got none"
        )
    return tuple(found)


def _guess(values: np.ndarray[Any, Any], where: str) -> str:
    held = present(values)
    if not held:
        raise ValueError(f"expected a value in some row of {where}, got none; try to ignore it")
    if all(isinstance(v, bool | np.bool_) for v in held):
        return "binary"
    if all(is_number(v) for v in held):
        if all(v in (0, 1) for v in held):
            return "binary"
        return "count" if all(v >= 0 and v == int(v) for v in held if np.isfinite(v)) else "real"
    words = {word_of(v) for v in held}
    if len(words) > FEW and len(words) > MOST * len(held):
        raise ValueError(
            f"expected numbers or categories in {where}, got {len(words)} different words in {len(held)} rows, as "
            "names of rows are; try to ignore it (role 'ignore'; command line: --columns 'NAME = \"ignore\"'), or "
            "declare it a category"
        )
    return "category"


def _words(
    values: np.ndarray[Any, Any], role: str, order: tuple[str, ...] | None, column: str, name: str
) -> tuple[str, ...] | None:
    held = present(values)
    numeric = all(is_number(v) for v in held)
    if role == "binary" and not (numeric or all(isinstance(v, bool | np.bool_) for v in held)):
        words = sorted({word_of(v) for v in held})
        if len(words) != 2:
            raise ValueError(
                f"expected two values in the binary column {column!r} of {name}, got {len(words)}: {words[:4]}"
            )
        return tuple(words)
    if role not in NAMED and role != "label":
        return None
    if role in NAMED or role == "label":
        odd = next((v for v in held if is_number(v) and not np.isfinite(v)), None)
        if odd is not None:
            raise ValueError(
                f"expected finite numbers or words in the {role} column {column!r} of {name}, got {odd}"
            )
    if role == "label" and numeric and all(v == int(v) and not isinstance(v, Written) for v in held):
        return None
    found = sorted({word_of(v) for v in held}, key=(lambda w: (float(w), w)) if numeric else None)
    if order is not None:
        order = tuple(map(word_of, order))
        odd = [w for w in found if w not in order]
        if odd or len(set(order)) < len(order):
            raise ValueError(
                f"expected each value of column {column!r} of {name} once in its order, got {odd or order}"
            )
        return order
    if role == "ordinal" and not numeric:
        raise ValueError(
            f"expected the order of the words in the ordinal column {column!r} of {name}, got none; try {column} = "
            f'{{role = "ordinal", order = {found[:4]}}}'
        )
    return tuple(found)


def read_columns(
    frame: Any, table: Sequence[Column], name: str, missing: bool
) -> tuple[Tensor, np.ndarray[Any, Any] | None]:
    """Values of the columns that make x, by name, `[N, D]` in float64 with NaN where missing; and the labels, or None.

    Columns may come in any order; those that the table does not have are left out, with a warning.

    Raises:
        ValueError: a column that is not there, values that are missing and may not be, or that their role does not
            allow; each with column and row.
    """
    own = dict(zip(names_of(frame, name), frame.columns, strict=True))
    gone = [c.name for c in table if c.is_feature and c.name not in own]
    if gone:
        raise ValueError(f"expected the columns {gone} in {name}, got {', '.join(list(own)[:8])}")
    extra = [c for c in own if c not in {t.name for t in table}]
    if extra:
        warnings.warn(f"columns of {name} that the data did not have are left out: {extra}", stacklevel=2)
    features = [c for c in table if c.is_feature]
    x = np.stack([_numbers(values_of(frame[own[c.name]]), c, name, missing) for c in features], 1)
    labels = next((c for c in table if c.role == "label" and c.name in own), None)
    return torch.from_numpy(x), None if labels is None else read_labels(
        values_of(frame[own[labels.name]]), labels, name
    )


def _numbers(values: np.ndarray[Any, Any], column: Column, name: str, missing: bool) -> np.ndarray[Any, Any]:
    found = np.full(len(values), np.nan)
    places = {word_of(w): i for i, w in enumerate(column.words or ())}  # as runs of before have them
    where = f"column {column.name!r} of {name}"
    for i, value in enumerate(values):
        if value is None:
            if not missing:
                raise ValueError(
                    f"expected no missing values in {where}, got one in row {i} (from 0); try missing='ignore' "
                    "(command line: --missing ignore)"
                )
            continue
        found[i] = _number(value, column, places, where, i)
    return found


def _number(value: Any, column: Column, places: dict[str, int], where: str, row: int) -> float:
    if places:
        word = word_of(value)
        if word not in places:
            raise ValueError(
                f"expected one of {list(places)[:8]} in the {column.role} {where}, got {word!r} in row {row} (from 0), "
                "which the training data did not have; try to drop the row, or to leave the value out where missing "
                "ones are ignored"
            )
        return float(places[word])
    if isinstance(value, bool | np.bool_) and column.role == "binary":
        return float(value)
    if not is_number(value):
        raise ValueError(f"expected numbers in {where} ({column.role}), got {value!r} in row {row} (from 0)")
    number = float(value)
    allowed = {
        "positive": number > 0,
        "count": number >= 0 and number == np.floor(number),
        "binary": number in (0.0, 1.0),
    }.get(column.role, True)
    if not allowed:
        wanted = {"positive": "numbers above 0", "count": "whole numbers >= 0", "binary": "0 and 1"}[
            column.role
        ]
        raise ValueError(f"expected {wanted} in {where} ({column.role}), got {value!r} in row {row} (from 0)")
    if column.role == "count" and 2**24 < number < np.inf:
        raise ValueError(
            f"expected counts <= 2**24 in {where}, which float32 holds exactly, got {value!r} in row {row} (from 0); "
            "try the role real, or to ignore it"
        )
    return number


def described(table: Sequence[Column], x: Tensor | None = None) -> list[tuple[str, ...]]:
    """Rows of a table of the columns: name, role, whether it was guessed, values, share missing.

    Args:
        table: the columns.
        x: their values `[N, D]`, for ranges and what is missing.
    """
    rows: list[tuple[str, ...]] = []
    place = 0
    for c in table:
        values, gone = "", ""
        if c.words:
            values = ", ".join(c.words[:6]) + (" ..." if len(c.words) > 6 else "")
        if c.is_feature and x is not None:
            held = x[:, place][~x[:, place].isnan()]
            if not c.words and len(held):
                low, high = float(held.min()), float(held.max())
                values = f"{low:.4g}, which does not vary" if low == high else f"{low:.4g} ... {high:.4g}"
            gone = f"{100 * (1 - len(held) / len(x)):.3g} %"
        place += c.is_feature
        rows.append((c.name, c.role, "guessed" if c.guessed else "given", values, gone))
    return rows
