"""The likelihood that was taken, in words: which, why, and whether it makes ln p(x) a mass or a density."""

from __future__ import annotations

from typing import Any

import pyrovae as pv
from pyrovae.data import Dataset, described
from pyrovae.programs import ON_GRAIN, Measure, ParameterStore, grain_of, inspect_program

from .options import ModelOptions

AUTO = ("vae", "conditional", "semi-supervised", "hierarchical")  # whose likelihood is chosen
# Of so small a share of values that are not whole, each may be a mistake.
FEW = 0.05


def measured(pair: Any, data: Dataset) -> Measure:
    """The measure of a (model, guide) pair, which is left as it was."""
    store = ParameterStore()
    return inspect_program(store.bind(pair[0]), store.bind(pair[1]), *data.arguments("train")).measure


def measure_of_run(run: pv.Run, x: Any, *context: Any) -> Measure:
    """The measure of a trained program."""
    return inspect_program(run.model, run.guide, x, *context).measure


def words_of(measure: Measure, options: ModelOptions, data: Dataset) -> str:
    """One line on p(x|z)."""
    text = f"p(x|z) is {measure}"
    if options.likelihood == "auto" and options.model in AUTO:
        text += f", which --likelihood auto takes for {_values(data)}"
    if measure.kind == "mass":
        return text
    found, strays = grain_of(measure, data.train), _strays(data)
    if found is None or strays:
        return (
            f"{text}: ln p(x) changes with the units of x and is not comparable with that of a mass{strays}"
        )
    return f"{text}. x holds {found}: {ON_GRAIN}"


def _values(data: Dataset) -> str:
    if data.spec.support == "mixed":
        return "columns of several kinds"
    if data.top_count is not None:
        return f"whole numbers 0 ... {data.top_count:,}"
    return {"binary": "bits", "unit_interval": "numbers in 0 ... 1"}.get(data.spec.support, "real numbers")


def _strays(data: Dataset) -> str:
    """The few values that keep data from being whole numbers, which a mass would be taken for."""
    splits = {name: data.split(name) for name in ("train", "valid", "test")}
    if data.spec.support == "mixed":
        return ""
    size = sum(x.numel() for x in splits.values())
    found = {n: (x != x.round()) & ~x.isnan() for n, x in splits.items()}
    count = sum(int(odd.sum()) for odd in found.values())
    if not 0 < count <= FEW * size:
        return ""
    name = next(n for n, odd in found.items() if bool(odd.any()))
    place = found[name].nonzero()[0].tolist()
    first = f"the first: {float(splits[name][tuple(place)]):g} at {place} of split {name!r}"
    return (
        f". {count:,} of {size:,} values are not whole numbers ({first}): without them a mass would be taken"
    )


def columns_of(data: Dataset) -> str:
    """A table of the columns and their roles, where those were declared or guessed; else ""."""
    if data.spec.table is None:
        return ""
    rows = [("column", "role", "", "values", "missing"), *described(data.spec.table, data.train)]
    wide = [max(len(row[i]) for row in rows) for i in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, wide, strict=True)).rstrip() for row in rows
    )
