"""Train a grid of priors x guides x objectives and compare ELBO with importance-sampled evidence."""

from __future__ import annotations

import dataclasses
import functools
import json
import runpy
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

if __name__ == "__main__" and not __package__:  # the command, which hears Ctrl-C while torch is imported
    sys.exit(runpy.run_path(f"{Path(__file__).parent}/cli.py")["main"](["compare", *sys.argv[1:]]))

import tyro

import pyrovae as pv
from pyrovae import runs
from pyrovae.comparing import (
    Cell,
    CellResult,
    Entry,
    Failure,
    Outcome,
    Plan,
    comparison_table,
    cores,
    make_plan,
    run_plan,
    stands,
)
from pyrovae.data import Dataset
from pyrovae.evidence.data_hash import data_hash
from pyrovae.inference.options.building import absolute, device_of, load_data
from pyrovae.inference.options.machine import DeviceName, FormatName, MachineOptions
from pyrovae.inference.options.measuring import columns_of, measure_of_run, words_of
from pyrovae.inference.options.options import (
    DataOptions,
    GuideName,
    LoopOptions,
    ObjectiveName,
    PriorName,
    SizeOptions,
)
from pyrovae.inference.running.entries import entry_of_run
from pyrovae.inference.running.evaluating import Question, evaluate_run, keep, load_runs
from pyrovae.inference.running.grid import Named, estimators_of, make_cells
from pyrovae.inference.running.keeping import save_comparison
from pyrovae.inference.running.running import (
    NothingTrained,
    console,
    print_table,
    progress,
    run_script,
)
from pyrovae.inference.running.telling import in_users_code, reason_of
from pyrovae.programs import check_alike


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Options:
    """Options of compare."""

    BASIC: ClassVar = (
        *("priors", "guides", "objectives", "programs", "runs", "num_samples", "tolerance", "seeds", "out", "jobs"),
        *("data", "binarise", "preset", "likelihood", "network", "latent_dim", "hidden"),
        *("epochs", "batch_size", "lr", "seed", "device", "quiet"),
    )  # fmt: skip

    priors: tuple[PriorName, ...] = ("standard", "mixture", "vamp")
    """Priors of the grid."""
    guides: tuple[GuideName, ...] = ("diagonal", "full", "flow")
    """Guides of the grid."""
    objectives: tuple[ObjectiveName, ...] = ("trace-elbo", "mean-field")
    """Objectives; one that is not valid for a program is refused for it, with the reason."""
    programs: tuple[str, ...] = ()
    """Programs of your own beside the grid: package.module:attribute or file.py:attribute."""
    runs: tuple[Path, ...] = ()
    """Run folders to compare beside the grid, on the same data."""
    only_runs: bool = False
    """No grid: compare the folders of --runs alone, on their own data."""
    trust: bool = False
    """Run the code that the folders of --runs name, where it is not the code that you trained them with."""
    num_samples: int = 5000
    """Importance samples K per test datum."""
    tolerance: float | None = None
    """Also pv.Adaptive: ln p(x) with at most this Monte-Carlo error per datum [nats]."""
    seeds: int = 1
    """Seeds of each cell, from --seed on. Five are --seed, --seed + 1, ... --seed + 4; the table then has means over
    seeds, and the error over the data apart from the spread over seeds."""
    out: Path = Path("runs/compare")
    """Run folder: table.md, metrics.csv, pictures, and a run folder for every cell. A comparison that was stopped goes
    on where it was: cells that are finished are not trained again."""
    jobs: int | None = None
    """Cells at a time (default: one per core; one on a GPU)."""
    format: FormatName = "png"
    """Format of pictures."""
    data: DataOptions = field(default_factory=DataOptions)
    sizes: SizeOptions = field(default_factory=SizeOptions)
    train: LoopOptions = field(default_factory=LoopOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)


def run(options: Options) -> None:
    """Runs the grid, prints the table, writes table, histories and pictures."""
    started = time.perf_counter()
    options = dataclasses.replace(options, data=absolute(options.data))
    device = device_of(options.machine.device)
    if options.only_runs and not options.runs:
        raise ValueError("expected run folders with --only-runs, got none; try --runs runs/a runs/b")
    others, given = (
        load_runs(options.runs, None, device, "test", None, options.trust) if options.runs else ([], None)
    )
    cells: list[Cell] = []
    plan = Plan([], {}, {})
    if options.only_runs:
        data = others[0].data
    else:
        data = load_data(options.data, device)
        if given is not None and data_hash(*given) != data_hash(*data.arguments("test")):
            raise ValueError(
                f"expected runs on the grid's data, {data.spec.name} ({data.spec.support}), got {others[0].folder} on "
                f"{others[0].spec.name} ({others[0].spec.support}); try --only-runs, or the --data of the runs"
            )
        cells = make_cells(
            options.data,
            options.sizes,
            options.train,
            priors=options.priors,
            guides=options.guides,
            objectives=options.objectives,
            programs=options.programs,
            out=options.out,
            estimators=_estimators(options),
            seeds=options.seeds,
            format=options.format,
        )
        plan = make_plan(cells, data, _refused)
        console.print(columns_of(data), highlight=False, markup=False, end="\n" if data.spec.table else "")
        for words in dict.fromkeys(_words(cell, plan, data) for cell in plan.measures):
            console.print(words, highlight=False)
        grid = [(cell.title, measure) for cell, measure in plan.measures.items()]
        check_alike(
            grid + [(str(run.folder), measure_of_run(run, *data.arguments("test"))) for run in others]
        )
    with runs.occupied(options.out):
        outcome = _train(options, plan, cells, device.type)
        unwritten = [OSError(text) for text in outcome.unwritten]
        extra = [_evaluate(options, other, data, unwritten) for other in others]
        if cells and not (outcome.results or outcome.failed or extra):
            reasons = "; ".join(dict.fromkeys(plan.refused.values()))
            raise ValueError(f"expected a program that can be trained, got none: {reasons}")
        rows = outcome.rows()
        table = comparison_table(rows, extra)
        title = data.spec.heading("test", len(data.test), options.num_samples)
        title += f"; {time.perf_counter() - started:.0f} s in all"
        print_table(table, title)
        entries = [row for row in rows if isinstance(row, Entry)] + extra
        if not entries:
            raise NothingTrained("expected at least one cell that can be trained, got none; see above")
        plain = json.loads(json.dumps(dataclasses.asdict(options), default=str))
        how: Any = {"device": options.machine.device, "format": options.format, "failed": unwritten}
        save_comparison(options.out, entries, table, title, plain, **how)


def _train(options: Options, plan: Plan, cells: list[Cell], device: str) -> Outcome:
    """Trains and evaluates the cells, with a bar."""
    if not plan.cells:
        return Outcome(cells, plan)
    there = [stands(cell) for cell in plan.cells]  # refuses a run in the way before anything is trained
    if "whole" in there:
        console.print(f"{there.count('whole')} of {len(there)} cells were finished before")
    jobs = options.jobs or (cores() if device == "cpu" else 1)
    with progress(options.machine.quiet, "fits", len(plan.cells)) as update:

        def ended(cell: Cell, result: CellResult | Failure) -> None:
            if isinstance(result, Failure):
                update(advance=1, note=f"{cell.title} failed")
            else:
                update(advance=1, note=f"{cell.title} IS {result.evidence['IS'].log_evidence:.2f}")

        load = functools.partial(_load, options.data, options.machine.device)
        threads = max(1, cores() // jobs)
        return run_plan(cells, plan, load, jobs=jobs, threads=threads, reason=reason_of, on_cell=ended)


def _load(data: DataOptions, device: DeviceName) -> Dataset:
    return load_data(data, device_of(device))


def _evaluate(options: Options, other: pv.Run, data: Dataset, unwritten: list[OSError]) -> Entry:
    """A run folder beside the grid."""
    question = Question(
        data.test,
        "test",
        options.num_samples,
        options.train.seed,
        reuse=True,
        estimators=_estimators(options),
        context=data.arguments("test")[1:],
        format=options.format,
    )
    with progress(options.machine.quiet, str(other.folder), options.num_samples * len(data.test)) as update:
        ev, found = evaluate_run(other, question, lambda done, _total: update(completed=done))
    try:
        if not found:
            keep(other, question, ev)
    except OSError as error:
        unwritten.append(error)
    return entry_of_run(other, ev)


def _estimators(options: Options) -> tuple[Any, ...]:
    return estimators_of(options.num_samples, options.tolerance)


def _refused(error: BaseException) -> str:
    """Why a cell has no figures; an error of the user's own code, or of ours, ends the command and is raised."""
    if not isinstance(error, ValueError) or in_users_code(error) is not None:
        raise error
    return reason_of(error)


def _words(cell: Cell, plan: Plan, data: Dataset) -> str:
    assert isinstance(cell.program, Named)
    return words_of(plan.measures[cell], cell.program.options, data)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_script(run, Options, argv, "compare", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
