"""Data in the units that were asked for, missing values in the place of refusals; and as parts see them."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ..dataset import SPLITS, Dataset
from ..raw import Raw
from ..spec import DataSpec, Support
from .columns import Column, features
from .missing import check_columns, filled, filling
from .standardization import Standardization, check_positive, fitted

Missing = Literal["refuse", "ignore"]
LARGE, SMALL = 1e3, 1e-3  # scales beyond which networks learn badly


def check_asked(standardize: Any, log: Sequence[str], missing: Any, binarise: Any) -> None:
    """Refuses options that are not understood, or not together.

    Raises:
        ValueError: saying which.
    """
    if not isinstance(standardize, bool):
        raise ValueError(f"expected standardize=True or False, got {standardize!r}")
    if missing not in ("refuse", "ignore"):
        raise ValueError(f"expected missing='refuse' or 'ignore', got {missing!r}")
    if isinstance(log, str):
        raise ValueError(f"expected the names of columns for log, got {log!r}; try [{log!r}]")
    if log and not standardize:
        raise ValueError(
            f"expected standardize=True with log={list(log)!r}, which is of standardised columns, got False; try "
            f"standardize=True (command line: --standardize, beside --log-columns {' '.join(map(str, log))})"
        )
    if binarise is not None and (standardize or missing == "ignore"):
        raise ValueError(
            f"expected binarise=None with standardised data or missing values, got {binarise!r}; try one of them"
        )


def check_missing(raw: Raw) -> None:
    """Refuses what may not be missing.

    Raises:
        ValueError: data that are no rows; as `check_columns`.
    """
    train = raw.splits["train"]
    if train.dim() != 2:
        raise ValueError(
            f"expected rows [N, D] with missing values, got {raw.name!r} of event shape {list(train.shape[1:])}; try "
            "to flatten them, or missing='refuse'"
        )
    check_columns(raw.splits, raw.columns, repr(raw.name))


def support_of(table: Sequence[Column]) -> Support:
    """Support of all columns together: "real" or "binary" where all are so, else "mixed"."""
    roles = {c.role for c in features(table)}
    return "real" if roles == {"real"} else "binary" if roles == {"binary"} else "mixed"


def whole_columns(spec: DataSpec) -> Tensor | bool:
    """Whether the numbers of each column are whole."""
    if spec.table is None:
        return spec.support not in ("real", "unit_interval")
    return torch.tensor([c.role not in ("real", "positive") for c in features(spec.table)], device="cpu")


def standardization_of(raw: Raw, log: Sequence[str]) -> Standardization:
    """The standardisation of the training rows.

    Raises:
        ValueError: data that are no rows of real numbers; unknown names in `log`; as `fitted`.
    """
    train = raw.splits["train"]
    if train.dim() != 2:
        raise ValueError(
            f"expected rows [N, D] to standardise, got {raw.name!r} of event shape {list(train.shape[1:])}; try it "
            "without"
        )
    numbers = torch.cat([x[~x.isnan()] for x in raw.splits.values()])
    whole = raw.table is None and bool((numbers == numbers.round()).all())
    if whole or raw.support in ("binary", "levels", "nonnegative_integer"):
        raise ValueError(
            f"expected real numbers to standardise, got {raw.name!r} of support {raw.support}: whole numbers have a "
            "probability mass in their own units, and standardised ones would have a density; try it without, or to "
            "declare which columns are real (columns=, --columns)"
        )
    names = raw.columns or tuple(str(i) for i in range(train.shape[1]))
    unknown = [n for n in log if n not in names]
    if unknown:
        raise ValueError(f"expected columns of {raw.name!r} for log, got {unknown[0]!r}; try among {names}")
    which = [True] * len(names)
    if raw.table is not None:
        roles = [c.role for c in features(raw.table)]
        which = [role in ("real", "positive") for role in roles]
        odd = [n for n, taken in zip(names, which, strict=True) if n in log and not taken]
        if odd or not any(which):
            raise ValueError(
                f"expected real or positive columns of {raw.name!r} to standardise, got "
                f"{f'{odd[0]!r} for log' if odd else 'none'}; try it without"
            )
        log = [*log, *(n for n, role in zip(names, roles, strict=True) if role == "positive")]
    units = fitted(train, which, [n in log for n in names], names, repr(raw.name))
    for split in ("valid", "test"):
        check_positive(raw.splits[split], units.log, names, f"split {split!r} of {raw.name!r}")
    return units


def warn_scales(raw: Raw) -> None:
    """Warns of raw real columns that are constant, or whose scale is far from 1, naming them."""
    train = raw.splits["train"]
    if raw.support not in ("real", "mixed") or train.dim() != 2:
        return
    taken = torch.ones(train.shape[1], dtype=torch.bool, device="cpu")
    if raw.table is not None:
        taken = torch.tensor([c.role in ("real", "positive") for c in features(raw.table)], device="cpu")
    x = train.double()
    held = ~x.isnan()
    count = held.sum(0).clamp(min=1)
    mean = torch.where(held, x, 0.0).sum(0) / count
    spread = (torch.where(held, x - mean, 0.0).square().sum(0) / count).sqrt()
    far = (torch.maximum(spread, mean.abs()) > LARGE) | ((spread < SMALL) & (spread > 0))
    names = raw.columns or tuple(f"column {i}" for i in range(train.shape[1]))
    constant = ((spread == 0) & (held.sum(0) > 1) & taken).nonzero().flatten().tolist()
    if constant:
        shown = ", ".join(f"{names[i]} ({float(mean[i]):.3g})" for i in constant[:5])
        rest = f" and {len(constant) - 5} more" if len(constant) > 5 else ""
        warnings.warn(
            f"{raw.name} has columns of one value alone: {shown}{rest}; a density of them has no upper bound where its "
            "scale is learned: leave them out",
            stacklevel=3,
        )
    places = (far & taken).nonzero().flatten().tolist()
    if not places:
        return
    shown = ", ".join(f"{names[i]} ({float(mean[i]):.3g} ± {float(spread[i]):.2g})" for i in places[:5])
    rest = f" and {len(places) - 5} more" if len(places) > 5 else ""
    warnings.warn(
        f"{raw.name} has columns whose scale is far from 1: {shown}{rest}; networks learn them badly: try "
        "standardize=True (command line: --standardize), by which the evidence stays that of the data in their own "
        "units",
        stacklevel=3,
    )


def prepared(data: Dataset) -> Dataset:
    """The data as parts see them: standardised, with means in the place of missing values.

    Parts are built for these (`pyrovae.models.composing.vae.compose`), and what is built takes the data themselves.
    """
    spec = data.spec
    if data.is_prepared or (spec.standardization is None and spec.missing is None):
        return data
    units = spec.standardization
    splits = {name: data.split(name) for name in SPLITS}
    if units is not None:
        splits = {name: units.forward(x) for name, x in splits.items()}
    if spec.missing is not None:
        fill = filling(splits["train"], whole_columns(spec))
        splits = {name: filled(x, fill) for name, x in splits.items()}
    return dataclasses.replace(
        data, train=splits["train"], valid=splits["valid"], test=splits["test"], is_prepared=True
    )


def fill_of(data: Dataset) -> Tensor:
    """A value of the data's own units for each number of a datum, where it is missing: what `prepared` fills in."""
    whole = whole_columns(data.spec)
    if data.spec.standardization is None:
        return filling(data.train, whole)
    return data.spec.standardization.inverse(filling(data.spec.standardization.forward(data.train), whole))
