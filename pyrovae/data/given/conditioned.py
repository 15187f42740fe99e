"""Data of which labels or columns are given: programs of p(x | c)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ...text import meant
from ..checks import detect_support
from ..dataset import SPLITS, Dataset
from ..hashing import content_hash
from ..spec import DataSpec
from ..tables.columns import Column
from ..tables.missing import shares
from ..tables.preparing import support_of
from .classes import one_hot_labels, with_classes

LABEL, LENGTHS = "label", "lengths"


def conditioned(data: Dataset, on: Sequence[str] = (LABEL,)) -> Dataset:
    """The same data with a context c: programs are then `model(x, c)`, and their evidence is ln p(x | c).

    Args:
        data: of `load`.
        on: "label", whose classes, those of the training data, become 0/1 columns `[N, C]`; and names of a table's
            columns, which leave x and stand in c as they are.

    Returns:
        Data whose `context` is one tensor `[N, width]` a split, the label's columns first.

    Raises:
        ValueError: nothing to condition on, no labels, one that is missing (below 0) or that training data do not
            have, names that are no columns or stand there twice, all columns, a context that is there already, or
            columns of data that are redrawn.

    Example:
        >>> from pyrovae.data import load
        >>> (labels,) = conditioned(load("digits")).context["test"]
        >>> labels.shape
        torch.Size([360, 10])
    """
    names = (on,) if isinstance(on, str) else tuple(on)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"expected names to condition on, each once, got {names}; try ('label',)")
    wrong = [n for n in names if not isinstance(n, str)]
    if wrong:
        raise ValueError(
            f"expected names of columns, or 'label', to condition on, got {wrong[0]!r}; try a data frame, whose "
            "columns have names, or pv.data.with_context(pv.data.load(x), c)"
        )
    refuse_given(data)
    columns = [n for n in names if n != LABEL]
    parts: dict[str, list[Tensor]] = {split: [] for split in SPLITS}
    if LABEL in names:
        data = with_classes(data)
        for split, codes in one_hot_labels(data).items():
            parts[split].append(codes)
    if columns:
        data, taken = _without(data, columns)
        for split, values in taken.items():
            parts[split].append(values)
    context: dict[str, tuple[Tensor, ...]] = {split: (torch.cat(found, 1),) for split, found in parts.items()}
    given = (*([LABEL] if LABEL in names else []), *columns)
    return put_context(data, context, given)


def put_context(data: Dataset, context: dict[str, tuple[Tensor, ...]], given: tuple[str, ...]) -> Dataset:
    """Data with this context; the hash is of both, and an exact ln p(x) is no more that of the program."""
    whole = {s: data.split(s).cpu() for s in SPLITS}
    whole |= {f"{s} given {i}": t.cpu() for s in SPLITS for i, t in enumerate(context[s])}
    spec = replace(data.spec, given=given, hash=content_hash(whole))
    return replace(data, spec=spec, context=context, log_evidence=None, parameters=None)


def refuse_given(data: Dataset) -> None:
    """Refuses data that have a context already.

    Raises:
        ValueError: naming it.
    """
    if data.context is not None:
        raise ValueError(
            f"expected data without a context, got {data.spec.name} with {', '.join(data.spec.given)}; try the data as "
            "they were loaded"
        )


def _without(data: Dataset, columns: Sequence[str]) -> tuple[Dataset, dict[str, Tensor]]:
    known = data.spec.columns
    if known is None:
        raise ValueError(
            f"expected a table to condition on {', '.join(columns)}, got {data.spec.name} without names of columns; "
            "try 'label', or a data frame"
        )
    for name in columns:
        if name not in known:
            hint = meant(name, known) or f"its columns are {', '.join(known[:20])}"
            raise ValueError(f"expected a column of {data.spec.name}, got {name!r}; {hint}")
    if len(columns) == len(known):
        raise ValueError(
            f"expected a column that is left to model, got all {len(known)} to condition on; try fewer"
        )
    if data.spec.binarisation is not None:
        raise ValueError(
            "expected data that are not binarised to condition on columns, got some that are; try 'label'"
        )
    own = [known.index(name) for name in columns]
    left = [i for i in range(len(known)) if i not in own]
    splits = {s: data.split(s)[:, left].contiguous() for s in SPLITS}
    taken = {s: data.split(s)[:, own] for s in SPLITS}
    spec = data.spec
    units, roles = spec.standardization, _roles_without(spec, columns)
    support, levels = detect_support(splits)
    if roles is not None:
        support, levels = support_of(roles), None
    elif units is not None:
        support, levels = "real", None
    if spec.missing is not None:
        _refuse_missing(taken, columns, spec.name)
    spec = replace(
        spec,
        event_shape=(len(left),),
        support=support,
        levels=levels,
        columns=tuple(known[i] for i in left),
        standardization=None if units is None else units.of(left),
        table=roles,
        missing=None if spec.missing is None else shares(splits),
    )
    rest = replace(data, train=splits["train"], valid=splits["valid"], test=splits["test"], spec=spec)
    return rest, taken


def _roles_without(spec: DataSpec, columns: Sequence[str]) -> tuple[Column, ...] | None:
    """Roles of the columns that are left; words are no numbers that a network could be given."""
    if spec.table is None:
        return None
    named = [c.name for c in spec.table if c.name in columns and c.words is not None]
    if named:
        raise ValueError(
            f"expected columns of numbers to condition on, got {named[0]!r} of {spec.name}, which holds words or "
            "categories; try to declare it the label (--columns, role 'label') and --condition label, or one 0/1 "
            "column for each of its values (pandas.get_dummies)"
        )
    return tuple(c for c in spec.table if c.name not in columns)


def _refuse_missing(taken: dict[str, Tensor], columns: Sequence[str], name: str) -> None:
    for split, values in taken.items():
        gone = values.isnan().any(0)
        if bool(gone.any()):
            column = columns[int(gone.nonzero()[0])]
            raise ValueError(
                f"expected a value in every row of {column!r} of {name} to condition on it, got missing ones in split "
                f"{split!r}; try another column, or to drop those rows"
            )
