"""Plan of a comparison: the cells that have to run, found out before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO

from ..data import Dataset
from ..objectives import check_objective
from ..programs import Measure, ParameterStore, check_alike, inspect_program, store_of
from ..programs.checks.validity import closed_form_kl
from .cell import Cell, Pair
from .given import Copied

# A cell, its programs, which have to stay alive as long as places in memory are compared, and their parameters.
Held = tuple[Cell, Pair, dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Plan:
    """Cells that have to run.

    Attributes:
        cells: the cells, longest first.
        refused: cells whose program or objective is not valid, and why.
        same: cells that another cell of their program stands for, since it has an equal objective: where no KL has a
            closed form, TraceMeanField_ELBO is the same estimator as Trace_ELBO, with the same noise.
        measures: whether p(x) of a cell's program is a mass or a density.
    """

    cells: list[Cell]
    refused: dict[Cell, str]
    same: dict[Cell, Cell]
    measures: dict[Cell, Measure] = field(default_factory=dict)


def make_plan(cells: list[Cell], data: Dataset, reason: Callable[[BaseException], str] | None = None) -> Plan:
    """Builds each program once and looks at it, before anything is trained.

    Args:
        cells: of the comparison, in the order of the table.
        data: that they are trained on.
        reason: says in words why a program cannot be built or understood, which then refuses its cell; None: the
            error is raised.

    Raises:
        ValueError: masses and densities in one comparison; two cells that would train the same weights.
    """
    run: list[Cell] = []
    refused: dict[Cell, str] = {}
    same: dict[Cell, Cell] = {}
    measures: dict[Cell, Measure] = {}
    held: list[Held] = []
    others: dict[Any, Held] = {}
    for cell in cells:
        called = ""
        try:
            pair = cell.program.build(data, cell.seed)
            if data.context is not None:
                called = f" (model and guide are called with x and {', '.join(data.spec.given)})"
            program, parameters = _looked_at(pair, data, cell.plate)
            if isinstance(cell.program, Copied) and cell.program not in others:
                # Two copies that share weights share them with the user's own.
                other = cell.program.build(data, cell.seed)
                others[cell.program] = (cell, other, _looked_at(other, data, cell.plate)[1])
        except Exception as error:
            if reason is None:
                raise
            refused[cell] = f"{reason(error)}{called}"
            continue
        measures[cell] = program.measure
        objective = cell.arguments()["objective"]
        try:
            check_objective(objective, program)
        except ValueError as error:
            refused[cell] = str(error)
            continue
        closed = bool(closed_form_kl(program))
        mates = [c for c in run if c.program == cell.program and c.seed == cell.seed]
        twin = next((c for c in mates if is_equal(c.arguments()["objective"], objective, closed)), None)
        if twin is not None:
            same[cell] = twin
            continue
        run.append(cell)
        held.append((cell, pair, parameters))
    check_alike([(cell.title, measure) for cell, measure in measures.items()])
    _check_apart(held)
    for copy in others.values():
        _check_copied(copy, held)
    # Started last, the longest would run alone.
    run.sort(key=lambda c: c.slow, reverse=True)
    return Plan(run, refused, same, measures)


def is_equal(first: Any, second: Any, closed: bool) -> bool:
    """Whether two objectives take the same steps.

    Args:
        first, second: objectives; a Trace_ELBO that comes first stands for a TraceMeanField_ELBO.
        closed: whether a latent's KL has a closed form, which only TraceMeanField_ELBO takes.
    """
    if first is second:
        return True
    alike = (type(first), type(second)) == (Trace_ELBO, TraceMeanField_ELBO) and not closed
    if type(first) is not type(second) and not alike:
        return False
    a, b = (dict(getattr(o, "__dict__", {})) for o in (first, second))
    # What is not plain (an objective within, the state of chains) may differ unseen.
    plain = bool(a) and all(isinstance(v, bool | int | float | str | None) for v in a.values())
    return plain and a == b


def _looked_at(pair: Pair, data: Dataset, plate: str | None) -> tuple[Any, dict[str, torch.Tensor]]:
    """The program of a pair, and all of its parameters, by name."""
    store = ParameterStore()
    program = inspect_program(store.bind(pair[0]), store.bind(pair[1]), *data.arguments("train"), plate=plate)
    own = [found for found in map(store_of, pair) if found is not None]  # of a fit
    return program, {k: v for s in (store, *own) for k, v in s.unconstrained().items()}


def _check_apart(held: list[Held]) -> None:
    """Refuses cells that share weights: the second would go on where the first has ended.

    Raises:
        ValueError: naming the two, and a parameter.
    """
    owners: dict[int, Cell] = {}
    for cell, _, parameters in held:
        for name, value in parameters.items():
            place = value.untyped_storage().data_ptr()
            other = owners.setdefault(place, cell) if place else cell
            if other is not cell:
                raise ValueError(
                    f"expected new modules for each cell, got the same weights {name!r} in {_named(other, cell)} and "
                    f"{_named(cell, other)}, where the second would go on from the first; try a function of the data "
                    "that builds new modules at each call"
                )


def _check_copied(other: Held, held: list[Held]) -> None:
    """Refuses a program whose copies still have its own weights: training them would change the user's.

    Raises:
        ValueError: naming program and parameter.
    """
    places = {v.untyped_storage().data_ptr(): n for n, v in other[2].items()} | {0: ""}
    for cell, _, parameters in held:
        if cell.program is not other[0].program:
            continue
        for value in parameters.values():
            name = places.get(value.untyped_storage().data_ptr())
            if name:
                raise ValueError(
                    f"expected a program that can be copied, got {cell.title} with weights {name!r} that its copies "
                    "share with it; try a function of the data that builds new modules at each call"
                )


def _named(cell: Cell, other: Cell) -> str:
    return cell.title if cell.title != other.title else f"{cell.title} (seed {cell.seed})"
