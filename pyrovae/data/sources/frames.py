"""Tables: data frames of pandas, polars and the like, and sparse matrices of SciPy, as one array."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...text import listed
from ..checks import to_real

Columns = tuple[str, ...]
NUMBERING = 20  # rows, from which consecutive numbers are no coincidence


def is_frame(source: Any) -> bool:
    """Whether an object is a table with named columns."""
    return hasattr(source, "columns") and hasattr(source, "to_numpy")


def to_array(source: Any, name: str, missing: bool = False) -> tuple[Tensor, Columns | None]:
    """Tensor (float32 or float64) of an array, a sparse matrix or a table; the names of a table's columns.

    Raises:
        ValueError: as `to_real` and `from_frame`.
    """
    if is_frame(source):
        return from_frame(source, name, missing)
    if hasattr(source, "toarray") and hasattr(source, "tocsr"):
        source = source.toarray()
    if missing and isinstance(source, np.ma.MaskedArray):
        source = np.ma.filled(source.astype(np.float64), np.nan)
    return to_real(source, name), None


def from_frame(frame: Any, name: str, missing: bool = False) -> tuple[Tensor, Columns]:
    """Columns of a table `[N, columns]`, and their names; warns of columns that never change.

    Raises:
        ValueError: for a table without rows or columns, names that occur twice, missing values, and columns
            that hold no numbers.
    """
    columns = names_of(frame, name)
    if not columns or not len(frame):
        raise ValueError(
            f"expected {name} with rows and columns, got a table of {len(frame)} rows and {len(columns)} columns"
        )
    x = torch.stack([_column(frame[c], f"column {str(c)!r} of {name}", missing) for c in frame.columns], 1)
    warn_constant(x, columns, name)
    warn_numbering(x, columns, name)
    return x, columns


def row_names(frame: Any) -> Columns | None:
    """Names of a table's rows, as text; None where they are numbers 0, 1, ..., or it has none."""
    index = getattr(frame, "index", None)
    if not is_frame(frame) or index is None or callable(index):
        return None
    names = tuple(map(str, index))
    return None if names == tuple(map(str, range(len(names)))) else names


def names_of(frame: Any, name: str) -> Columns:
    """Names of a table's columns, as text.

    Raises:
        ValueError: for names that occur twice, 1 and "1" among them.
    """
    columns = tuple(str(c) for c in frame.columns)
    twice = sorted({c for c in columns if columns.count(c) > 1})
    if twice:
        raise ValueError(
            f"expected {name} with each column once, got {', '.join(map(repr, twice))} twice; try to rename them"
        )
    return columns


def warn_numbering(x: Tensor, columns: Sequence[str], name: str) -> None:
    """Warns of columns of `[N, columns]` that number the rows, each in a warning."""
    ordered = x.double().sort(0).values
    running = (ordered.diff(dim=0) == 1).all(0) & (ordered[:1] == ordered[:1].round()).all(0)
    numbering = [c for c, found in zip(columns, running.tolist(), strict=True) if found]
    for column in numbering if len(x) >= NUMBERING else ():
        warnings.warn(
            f"the column {column!r} of {name} has every number of a range once, as names of rows do, which say nothing "
            f"of new rows: try to drop it (command line: --columns '{column} = \"ignore\"')",
            stacklevel=3,
        )


def warn_constant(x: Tensor, columns: Sequence[str], name: str) -> None:
    """Warns of columns of `[N, columns]` that never change, naming them."""
    top = x.nan_to_num(-torch.inf).amax(0)
    same = ((x == top) | x.isnan()).all(0).tolist()
    constant = [c for c, found in zip(columns, same, strict=True) if found]
    if constant and len(x) > 1:
        warnings.warn(
            f"{name} has the same value in all rows of {listed(constant)}: under a density of learned scale its "
            "likelihood grows without bound; try to drop it",
            stacklevel=3,
        )


def absent(series: Any) -> np.ndarray[Any, Any]:
    """Whether each value of a column is missing."""
    found = series.isna() if hasattr(series, "isna") else series.is_null()
    return np.asarray(found, dtype=bool)


def _column(series: Any, name: str, missing: bool) -> Tensor:
    gone = absent(series)
    count = int(gone.sum())
    if count and not missing:
        first = int(gone.argmax())
        raise ValueError(
            f"expected no missing values in {name}, got {count}, the first in row {first} (from 0); try to drop or "
            "impute them, or missing='ignore' (command line: --missing ignore)"
        )
    dtype, values = series.dtype, series.to_numpy()
    if count and values.dtype.kind == "O":
        values = np.where(gone, np.nan, values)
    if values.dtype.kind == "O" and all(isinstance(v, bool | int | float | np.number) for v in values):
        # What numbers of several kinds, and pandas' nullable ones, are given as.
        values = np.array(values.tolist())
    if values.dtype.kind not in "buif":
        first = next((i for i, v in enumerate(values) if not _reads_as_number(v)), 0)
        raise ValueError(
            f"expected numbers in {name}, got {dtype} ({values[first]!r} in row {first} from 0); try columns='auto', "
            "which takes words as categories (command line: --columns auto), to leave it out, to give it as labels "
            "({'x': table, 'y': column}), or one 0/1 column for each of its values (pandas.get_dummies)"
        )
    return to_real(values, name)


def _reads_as_number(value: Any) -> bool:
    """Whether it is a number, or the text of one: a column of text is so for the sake of some cells."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
