"""`pv.compare`: programs, or parts by name, trained and evaluated on the same data."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pyrovae import runs
from pyrovae.comparing import (
    Cell,
    CellResult,
    Comparison,
    Failure,
    cores,
    folder_of,
    make_plan,
    run_plan,
    stands,
)
from pyrovae.comparing.driver import Outcome
from pyrovae.comparing.given import Copied
from pyrovae.comparing.identity import identity
from pyrovae.comparing.plan import Plan
from pyrovae.comparing.running import run_cell
from pyrovae.comparing.sending import NotSent, check_sent, refuse_inner
from pyrovae.comparing.workers import NotStarted
from pyrovae.data import Dataset
from pyrovae.evidence import ELBO, IS
from pyrovae.runs.data import source_of

from . import asked
from .composed import programs_of
from .grid import Named
from .running import progress as bar
from .telling import reason_of


def compare(
    programs: Mapping[str, Any] | None = None,
    data: Any = None,
    *,
    priors: Sequence[str] | Mapping[str, Callable[..., Any]] | None = None,
    guides: Sequence[str] | Mapping[str, Callable[..., Any]] | None = None,
    likelihoods: Sequence[str] | Mapping[str, Callable[..., Any]] | None = None,
    objectives: Sequence[str] | Mapping[str, Any] = ("trace-elbo",),
    seeds: Sequence[int] | int = (0,),
    estimators: Sequence[Any] = (ELBO(), IS(5000)),
    out: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    progress: bool = True,
    **options: Any,
) -> Comparison:
    """Trains programs x objectives x seeds by `pv.fit`, and evaluates each on the test split by `pv.evidence`.

    Everything is paired: cells of one seed have the same batches, and all are evaluated on the same data. With
    several seeds the table gives means over seeds, the error over the data, and apart from it the spread over seeds.
    In the two-way layout v[s, n] = mean + datum n + seed s + rest, both errors together are the root of the sum of
    their squares (`pyrovae.comparing.OverSeeds`).

    Args:
        programs: by name: a (model, guide) pair, an object with `.model` and `.guide`, or a function of the data that
            gives one, which is called under the seed of each cell. Each cell has a copy of a pair, which stays as it
            is.
        data: of `pv.data.load`, or what it takes; or, for programs of your own, scalar data `[N]`; or a tuple
            `(x, *context)` of such and of context with a row for each.
        priors, guides, likelihoods: parts that are composed to VAEs, in all combinations: names of the command line,
            or functions by names of your own: `f(data)`, and of a prior also `f(data, guide)`. Their sizes are
            keywords: `latent_dim=2, hidden=(64,)`, and all others of `pyrovae compare --help-all`. Default: standard,
            diagonal, and the likelihood that suits the data.
        objectives: names of the command line, or objectives of Pyro's or pyrovae's by names of your own. One that is
            not valid for a program is refused for it, with the reason; equal ones run once.
        seeds: of weights, batches, noise and evidence; a number n is 0 ... n - 1.
        estimators: of the evidence.
        out: folder with a run folder for each cell. A comparison that was stopped goes on where it was; cells that
            are finished are not trained again. None: nothing is written.
        jobs: processes side by side. What they are given has to be importable there: functions of a module; else all
            runs in this process, and a warning says why.
        progress: show a bar.
        **options: as of `pv.fit`, for all cells, but for those that each has of its own (seed, checkpoint, on_epoch).

    Returns:
        `Comparison`: prints as the table; `.best`, `["name"]`, `["name", seed]`, `.differences`, `.plot()`,
        `.to_dataframe()`, `.report(path)`. A cell that is refused or fails is a row with its reason.

    Raises:
        TypeError, ValueError: before anything is trained: arguments of another kind, no programs, names twice, masses
            beside densities, cells that would share weights, or another run in the way in `out`.
        FileExistsError: another process writes in `out`.

    Example:
        >>> data = pv.data.load("digits")  # doctest: +SKIP
        >>> result = pv.compare(data=data, priors=["standard", "vamp"], seeds=3, epochs=20)  # doctest: +SKIP
        >>> result.best.name, result.differences  # doctest: +SKIP
    """
    refuse_inner()
    if data is None:
        raise TypeError('expected data, got none; try pv.compare(..., data=pv.data.load("digits"))')
    fit, sizes = asked.options_of(options)
    numbers, questions = asked.seeds_of(seeds), asked.estimators_of(estimators)
    if not isinstance(jobs, int) or isinstance(jobs, bool) or jobs < 1:
        raise ValueError(f"expected jobs to be a whole number >= 1, got {jobs!r}")
    if not isinstance(progress, bool):
        raise TypeError(f"expected progress to be True or False, got {progress!r}")
    if out is not None and not isinstance(out, str | os.PathLike):
        raise TypeError(f"expected out to be a path, got {out!r}")
    chosen = asked.objectives_of(objectives)
    composed = programs is None or any(parts is not None for parts in (priors, guides, likelihoods))
    found = asked.data_of(data, composed)
    heads, named = programs_of(programs, priors, guides, likelihoods, sizes, found)
    folder = None if out is None else Path(out)
    cells = [
        Cell(
            (*label, objective),
            seed,
            program,
            asked.Arguments(given, fit, seed),
            questions,
            None if folder is None else folder_of(folder, (*label, objective), seed),
            slow=getattr(program, "slow", ()),
        )
        for label, program in named
        for objective, given in chosen.items()
        for seed in numbers
    ]
    _check_names(cells)
    plan = make_plan(cells, found, reason_of)
    if folder is not None:
        _describe(plan, found)
    if not plan.cells:
        reasons = "; ".join(f"{cell.title}: {why}" for cell, why in plan.refused.items())
        raise ValueError(f"expected a program that can be trained, got none: {reasons}")
    with nullcontext() if folder is None else runs.occupied(folder):
        for cell in plan.cells:
            stands(cell)  # refuses a run in the way before anything is trained
        outcome = _run(cells, plan, found, jobs, progress)
    for text in outcome.unwritten:
        warnings.warn(f"a file could not be written: {text}", stacklevel=2)
    copies = [n for n, p in {c.title: c.program for c in cells}.items() if isinstance(p, Copied)]
    remark = (
        f"{', '.join(copies)}: built before, so the initial weights are the same for every seed, and the spread is "
        "that of batches and noise."
    )
    remarks = (remark,) if copies and len(numbers) > 1 else ()
    return Comparison(outcome, found, heads, remarks)


def _check_names(cells: list[Cell]) -> None:
    """Refuses two programs of one name, or of names that give one folder."""
    met: dict[Any, Cell] = {}
    for cell in cells:
        for key in {(cell.title, cell.seed), cell.out} - {None}:
            other = met.setdefault(key, cell)
            if other is not cell:
                raise ValueError(
                    f"expected no two programs of one name, got {other.title!r} and {cell.title!r}"
                    + (f", both in {cell.out}" if cell.out is not None else "")
                )


def _describe(plan: Plan, data: Dataset) -> None:
    """Puts into each cell's configuration what decides its numbers; a cell that `pv.fit` refuses is refused."""
    for cell in list(plan.cells):
        try:
            cell.config.update({"data": source_of(data), "cell": identity(cell, data)})
        except ValueError as error:
            plan.cells.remove(cell)
            plan.refused[cell] = reason_of(error)
            continue
        cell.config["train"] = {"seed": cell.seed, "objective": cell.label[-1]}
        if isinstance(cell.program, Named) and source_of(data) is not None:  # pv.load builds it again
            cell.config["model"] = json.loads(json.dumps(dataclasses.asdict(cell.program.options)))
        else:
            cell.config["program"] = [" ".join(filter(None, cell.label[:-1])), "–"]


def _run(cells: list[Cell], plan: Plan, data: Dataset, jobs: int, shows: bool) -> Outcome:
    """Runs the plan, in this process where others cannot be given what they need."""
    load = functools.partial(_held, data)
    with bar(not shows, "fits", len(plan.cells)) as update:

        def ended(cell: Cell, result: CellResult | Failure) -> None:
            note = "failed" if isinstance(result, Failure) else f"{result.evidence.best.log_evidence:.2f}"
            update(advance=1, note=f"{cell.title} {note}")

        run = functools.partial(run_plan, cells, plan, load, reason=reason_of, on_cell=ended)
        if min(jobs, len(plan.cells)) == 1:
            return run()
        try:
            check_sent(functools.partial(run_cell, load=load), *plan.cells)
            return run(jobs=jobs, threads=max(1, cores() // jobs))
        except (NotSent, NotStarted) as error:
            warnings.warn(f"all cells run in this process: {error}", stacklevel=3)
            update(completed=0)
            return run()


def _held(data: Dataset) -> Dataset:
    return data
