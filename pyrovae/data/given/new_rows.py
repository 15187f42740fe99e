"""New rows in the form of the data that a program was trained on: columns in its order, values in its support."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...text import meant
from ..checks import check_event, to_real
from ..sources.frames import from_frame, is_frame, to_array
from ..sources.keys import renamed
from ..sources.opening import opened
from ..sources.sequences import checked_lengths, padded
from ..spec import KNOWN, DataSpec
from ..tables.reading import read_columns
from ..tables.standardization import check_positive
from .classes import UNKNOWN, class_columns
from .conditioned import LABEL, LENGTHS

LABELS = ("y", "labels")


@dataclass(frozen=True)
class NewRows:
    """Rows that were not trained on.

    Attributes:
        arguments: `(x, *context)`, x `[N, *event]` in the order they were given.
        names: of the rows: a table's index, else 0, 1, ....
        notes: what was done to bring them into form.
    """

    arguments: tuple[Tensor, ...]
    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def new_rows(source: Any, spec: DataSpec) -> NewRows:
    """Rows of a file, a table or an array as a program trained on `spec` takes them.

    A table's columns go by their names into the order of the training data, and further ones are left out; an array
    has to be as wide as they are. Nothing is rescaled, rounded or filled in; NaN is what is not observed, where the
    training data had missing values.

    Args:
        source: path of a `.csv`, `.parquet`, `.h5ad`, `.npy`, `.npz` or `.pt` file; a data frame or AnnData; an array
            or tensor `[N, *event]`; or a mapping with "x", and "y" or "labels" for programs of p(x | label).
        spec: of the data that were trained on.

    Raises:
        FileNotFoundError: no such file.
        ValueError: columns that are missing, another width or shape, values outside of the support, labels that are
            needed and not there, or classes that were not seen in training; naming the first.

    Example:
        >>> from pyrovae.data import load
        >>> digits = load("digits")
        >>> new_rows(digits.test.numpy()[:3], digits.spec).arguments[0].shape
        torch.Size([3, 64])
    """
    name, source = opened(source, spec.layer, spec.label_column)
    labels, lengths = None, None
    if isinstance(source, Mapping) and not is_frame(source):
        source, labels, lengths = _taken(source, name)
    if LENGTHS in spec.given:
        return _sequences(source, lengths, spec, name)
    given = [n for n in spec.given if n not in (LABEL, KNOWN)]
    if is_frame(source):
        table, names, notes = _frame(source, (*(spec.columns or ()), *given), spec, name, labels)
        own = _label_column(spec)
        if labels is None and {LABEL, KNOWN} & set(spec.given) and own in [str(c) for c in source.columns]:
            labels = source[next(c for c in source.columns if str(c) == own)]
    elif spec.table is not None:
        raise ValueError(
            f"expected a table with the columns {', '.join(spec.columns or ())}, whose names say what they are, got "
            f"{name} without names; try a data frame or a .csv file"
        )
    else:
        if given:
            raise ValueError(
                f"expected a table with the columns {', '.join(given)} that are given, got {name} without names; try a "
                "data frame or a .csv file"
            )
        table, notes = to_array(source, name, spec.missing is not None)[0], []
        names = tuple(map(str, range(len(table))))
        if spec.columns is not None:
            notes = [
                f"{name} has no names of columns: they are taken in the order of the training data, "
                f"{', '.join(spec.columns[:6])}{' ...' if len(spec.columns) > 6 else ''}"
            ]
    rest = len(spec.columns or ()) if given else table.shape[1] if table.dim() > 1 else 0
    x = table[:, :rest] if given else table
    if not spec.event_shape and x.dim() == 2 and x.shape[1] == 1:  # of a file, whose scalars are a column
        x = x[:, 0]
    _check(x, spec, names, name)
    context = (
        [class_columns(labels, names, spec.classes or (), name, _label_column(spec))]
        if LABEL in spec.given
        else []
    )
    if KNOWN in spec.given:
        unknown = torch.full((len(x),), UNKNOWN, device="cpu")
        if labels is not None:
            notes.append(f"labels of {name} are left out: ln p(x) is the sum over all of them")
        return NewRows((x.float(), unknown), names, tuple(notes))
    if given:
        context.append(table[:, rest:])
    rows = (x.float(),) if not context else (x.float(), torch.cat([c.float() for c in context], 1))
    return NewRows(rows, names, tuple(notes))


def _taken(source: Mapping[Any, Any], name: str) -> tuple[Any, Any, Any]:
    """x, labels and lengths of a mapping."""
    found = {str(k): v for k, v in source.items()}
    lengths = found.pop("lengths", None)
    found = dict(renamed(found))
    y = [k for k in LABELS if k in found]
    labels = found.pop(y[0]) if len(y) == 1 else None
    if len(found) == 1:
        return next(iter(found.values())), labels, lengths
    raise ValueError(
        f"expected one array of rows in {name}, under the key x (and labels under y), got {sorted(map(str, source))}; "
        "try np.savez(path, x=...)"
    )


def _frame(
    frame: Any, wanted: tuple[str, ...], spec: DataSpec, name: str, labels: Any
) -> tuple[Tensor, tuple[str, ...], list[str]]:
    columns, own = [str(c) for c in frame.columns], _label_column(spec)
    notes: list[str] = []
    if spec.columns is None and not wanted:
        taken = [c for c in columns if c != own] if LABEL in spec.given and labels is None else columns
        chosen = frame[[c for c in frame.columns if str(c) in taken]]
    else:
        missing = [c for c in wanted if c not in columns]
        if missing:
            hint = meant(missing[0], columns) or f"it has {', '.join(columns[:20])}"
            raise ValueError(
                f"expected the columns of the training data in {name}, got it without "
                f"{', '.join(map(repr, missing[:6]))}{' ...' if len(missing) > 6 else ''}; {hint}"
            )
        rest = [c for c in columns if c not in wanted and not (c == own and spec.given)]
        if rest:
            shown = ", ".join(rest[:6]) + (" ..." if len(rest) > 6 else "")
            notes.append(f"left out of {name}, not among the columns of the training data: {shown}")
        kept = [c for c in columns if c in wanted]
        if kept != list(wanted):
            notes.append(f"columns of {name} are put into the order of the training data, by name")
        chosen = frame[[next(c for c in frame.columns if str(c) == w) for w in wanted]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of columns that never change: a few new rows may well
        x = _values(chosen, spec, name)
    index: Any = getattr(frame, "index", None)
    plain = index is None or callable(index)
    return x, tuple(str(i) for i in (range(len(x)) if plain else index)), notes


def _label_column(spec: DataSpec) -> str:
    """Name of the column of labels in the training data, where they had one."""
    return spec.label_column or next((c.name for c in spec.table or () if c.role == "label"), LABEL)


def _values(chosen: Any, spec: DataSpec, name: str) -> Tensor:
    """Numbers of a table's columns, those of x by their roles and NaN where one may be missing, then those given."""
    missing, width = spec.missing is not None, len(spec.columns or chosen.columns)
    if not missing and spec.table is None:
        return from_frame(chosen, name)[0]
    own, given = chosen[list(chosen.columns)[:width]], list(chosen.columns)[width:]
    x = (
        from_frame(own, name, missing)[0]
        if spec.table is None
        else read_columns(own, spec.table, name, missing)[0]
    )
    # `frame[[]]` of polars is the whole frame, without rows
    return x if not given else torch.cat([x.double(), from_frame(chosen[given], name)[0].double()], 1)


def _check(x: Tensor, spec: DataSpec, names: Sequence[str], name: str) -> None:
    if spec.event_shape:
        check_event(x, name)
    if len(x) == 0:
        raise ValueError(f"expected at least one row in {name}, got none")
    if tuple(x.shape[1:]) != spec.event_shape:
        raise ValueError(
            f"expected rows of shape {list(spec.event_shape)} in {name}, as in training, got {list(x.shape[1:])}; "
            + ("try the same columns" if x.dim() == 2 and spec.event_shape else "try to reshape them")
        )
    unseen = x.isnan() if spec.missing is not None else torch.zeros_like(x, dtype=torch.bool)
    bad = ~torch.isfinite(x.float()) & ~unseen
    if bad.any():
        raise ValueError(f"expected finite numbers, got {_where(x, bad, spec, names, name)}")
    if spec.standardization is not None:
        check_positive(x, spec.standardization.log, spec.columns or tuple(map(str, range(x.shape[1]))), name)
    whole, in_unit = x == x.floor(), (x >= 0) & (x <= 1)
    inside = {
        "binary": (x == 0) | (x == 1),
        "levels": whole & (x >= 0) & (x < (spec.levels or torch.inf)),
        "nonnegative_integer": whole & (x >= 0),
        "unit_interval": in_unit,
        "real": torch.ones_like(whole),
        "mixed": torch.ones_like(whole),  # each column has been read by its role
    }[spec.support] | unseen
    if not inside.all():
        how = f" (binarisation {spec.binarisation!r})" if spec.binarisation else ""
        words = {"binary": f"bits{how}", "unit_interval": "numbers in [0, 1]"}
        if spec.levels is not None:
            words["levels"] = f"whole numbers from 0 to {spec.levels - 1}"
        raise ValueError(
            f"expected {words.get(spec.support, 'whole numbers >= 0')}, as in training, got "
            f"{_where(x, ~inside, spec, names, name)}; try to bring the rows into the form of the training data"
        )


def _where(x: Tensor, bad: Tensor, spec: DataSpec, names: Sequence[str], name: str) -> str:
    first = bad.nonzero()[0].tolist()
    column = "" if spec.columns is None else f", column {spec.columns[first[1]]!r}"
    place = f" at {first[1:]}" if not column else ""
    return f"{float(x[tuple(first)]):g} in row {names[first[0]]!r}{column}{place} of {name} ({int(bad.sum()):,} such)"


def _sequences(source: Any, lengths: Any, spec: DataSpec, name: str) -> NewRows:
    x = to_real(source, name)
    steps = checked_lengths(lengths, x, name)
    x = padded(x, steps, spec.event_shape[0], name)
    names = tuple(map(str, range(len(x))))
    _check(x, spec, names, name)
    return NewRows((x.float(), steps), names)
