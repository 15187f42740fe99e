"""New rows of the kind that a model was trained on, and rows as a frame with their own words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..sources.frames import from_frame, is_frame, to_array
from ..sources.opening import opened
from ..spec import DataSpec
from .columns import COUNTED, NAMED, features
from .reading import read_columns
from .standardization import check_positive


def rows_like(source: Any, spec: DataSpec, name: str | None = None) -> Tensor:
    """New rows `[N, D]` in float32, like the data described by `spec`: by names of columns, where they have some.

    Args:
        source: a frame, an array, a sparse matrix, or the path of a file of one.
        spec: of the data that a model was trained on.
        name: of the source, for errors; default: its file's, or its type's.

    Raises:
        ValueError: columns that are not there, categories that the training data did not have, values that their role
            does not allow, other widths; an array in the place of a table that has roles; missing values where the
            data had none.

    Example:
        >>> import pandas as pd
        >>> from pyrovae.data import load
        >>> frame = pd.DataFrame({"a": [0.5, 1.5, 2.0, 3.0], "b": [1.0, 2.0, 0.3, 0.4]})
        >>> rows_like(frame[["b", "a"]], load(frame, valid=1, test=1).spec)[0]
        tensor([0.5000, 1.0000])
    """
    own, source = opened(source, spec.layer)
    name = name or own
    missing = spec.missing is not None
    if is_frame(source):
        x = _by_name(source, spec, repr(name), missing)
    elif spec.table is not None:
        raise ValueError(
            f"expected a table with the columns {', '.join(spec.columns or ())}, whose names say what they are, got "
            f"{name} without names; try pandas.DataFrame(array, columns=[...])"
        )
    else:
        x, _ = to_array(source, repr(name), missing)
    if tuple(x.shape[1:]) != spec.event_shape:
        raise ValueError(f"expected rows of shape {spec.event_shape}, got {tuple(x.shape[1:])} in {name}")
    low = x.to(torch.float32)
    bad = low.isinf() if missing else ~low.isfinite()
    if bool(bad.any()):
        raise ValueError(
            f"expected finite values in {name}, got NaN or infinity in row {int(bad.flatten(1).any(1).nonzero()[0])} "
            "(from 0); a model takes missing values where it was trained with missing='ignore'"
        )
    if spec.standardization is not None:
        check_positive(
            low, spec.standardization.log, spec.columns or tuple(map(str, range(low.shape[1]))), name
        )
    return low


def _by_name(frame: Any, spec: DataSpec, name: str, missing: bool) -> Tensor:
    if spec.table is not None:
        return read_columns(frame, spec.table, name, missing)[0]
    if spec.columns is None:
        return from_frame(frame, name, missing)[0]
    own = {str(c): c for c in frame.columns}
    gone = [c for c in spec.columns if c not in own]
    if gone:
        raise ValueError(f"expected the columns {gone} in {name}, got {', '.join(list(own)[:8])}")
    return from_frame(frame[[own[c] for c in spec.columns]], name, missing)[0]


def as_frame(x: Tensor, spec: DataSpec, index: Any = None) -> Any:
    """Rows `[N, D]` as a data frame of pandas: own names of columns, words of categories, None where missing.

    Bits and categories are the nearest there are (of means, which lie between: the most probable); whole numbers are
    written as such where all of their column are.

    Args:
        x: the rows, such as draws or means of a model.
        spec: of the data.
        index: names of the rows.

    Raises:
        ValueError: data that are no rows.
    """
    import pandas as pd

    if len(spec.event_shape) != 1 or tuple(x.shape[1:]) != spec.event_shape:
        raise ValueError(
            f"expected rows of shape {spec.event_shape}, one number a column, got {tuple(x.shape)}"
        )
    names = spec.columns or tuple(f"x{i}" for i in range(x.shape[1]))
    table = features(spec.table) if spec.table is not None else (None,) * len(names)
    columns: dict[str, Any] = {}
    for name, column, values in zip(names, table, x.detach().cpu().T.numpy(), strict=True):
        role = spec.support if column is None else column.role
        if role not in ("binary", *COUNTED, *NAMED):
            columns[name] = values
            continue
        if column is None or column.words is None:
            values = np.round(values) if role == "binary" else values
            whole = bool((values == np.round(values))[~np.isnan(values)].all())
            columns[name] = pd.array(values, dtype="Int64" if whole else "Float64")
            continue
        codes = np.where(np.isnan(values), -1, np.round(np.nan_to_num(values))).astype(int)
        columns[name] = [None if c < 0 else column.words[min(c, len(column.words) - 1)] for c in codes]
    return pd.DataFrame(columns, index=index)


def only(x: Tensor, spec: DataSpec, columns: Sequence[str]) -> Tensor:
    """The rows with NaN in all other columns: their evidence is that of these columns by themselves, ln p(x_columns).

    Args:
        x: rows `[N, D]`.
        spec: of their data, which take missing values.
        columns: names of those that stay.

    Raises:
        ValueError: data without missing values or names, or names that are not theirs.
    """
    if spec.missing is None or spec.columns is None:
        raise ValueError(
            "expected a table whose model takes missing values, for the evidence of some columns, got another; try "
            "load(..., missing='ignore')"
        )
    odd = [c for c in columns if c not in spec.columns]
    if odd or not columns or isinstance(columns, str):
        raise ValueError(f"expected columns among {', '.join(spec.columns)}, got {odd or columns!r}")
    stay = torch.tensor([c in columns for c in spec.columns], device=x.device)
    return torch.where(stay, x, torch.nan)
