"""Train a grid of priors x guides x objectives and compare ELBO with importance-sampled evidence."""

from __future__ import annotations

import dataclasses
import json
import runpy
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

if __name__ == "__main__" and not __package__:  # the command, which hears Ctrl-C while torch is imported
    sys.exit(runpy.run_path(f"{Path(__file__).parent}/cli.py")["main"](["compare", *sys.argv[1:]]))

import tyro

import pyrovae as pv
from pyrovae import plots, runs
from pyrovae.data import Dataset
from pyrovae.evidence.evidence import data_hash
from pyrovae.files import write_whole
from pyrovae.inference.options.building import device_of, load_data
from pyrovae.inference.options.machine import MachineOptions
from pyrovae.inference.options.measuring import measure_of_run, words_of
from pyrovae.inference.options.options import (
    DataOptions,
    GuideName,
    LoopOptions,
    ObjectiveName,
    PriorName,
    SizeOptions,
)
from pyrovae.inference.running.evaluating import Question, entry_of_run, evaluate_run, keep, load_runs
from pyrovae.inference.running.grid import (
    Cell,
    CellResult,
    Plan,
    estimators_of,
    make_cells,
    make_plan,
    run_cell,
    stands,
)
from pyrovae.inference.running.pictures import draw_pictures
from pyrovae.inference.running.reopening import load_run
from pyrovae.inference.running.running import NothingTrained, console, progress, run_script, write_all
from pyrovae.inference.running.table import Entry, Table, comparison_table, entry_of, markdown, print_table
from pyrovae.inference.running.workers import Failure, cores, run_side_by_side
from pyrovae.programs import check_alike
from pyrovae.training.logging.history import Row, write_history

CURVES = 6  # more L_K curves than this cannot be told apart


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Options:
    """Options of compare."""

    BASIC: ClassVar = (
        *("priors", "guides", "objectives", "programs", "runs", "num_samples", "tolerance", "out", "jobs"),
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
    out: Path = Path("runs/compare")
    """Run folder: table.md, metrics.csv, pictures, and a run folder for every cell. A comparison that was stopped goes
    on where it was: cells that are finished are not trained again."""
    jobs: int | None = None
    """Cells run side by side (default: one per core; one on a GPU)."""
    data: DataOptions = field(default_factory=DataOptions)
    sizes: SizeOptions = field(default_factory=SizeOptions)
    train: LoopOptions = field(default_factory=LoopOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)


def run(options: Options) -> None:
    """Runs the grid, prints the table, writes table, histories and pictures."""
    started = time.perf_counter()
    device = device_of(options.machine.device)
    if options.only_runs and not options.runs:
        raise ValueError("expected run folders with --only-runs, got none; try --runs runs/a runs/b")
    others, x = (
        load_runs(options.runs, None, device, "test", None, options.trust) if options.runs else ([], None)
    )
    cells: list[Cell] = []
    jobs = 1
    plan = Plan([], {}, {})
    if options.only_runs:
        data = others[0].data
    else:
        data = load_data(options.data, device)
        if x is not None and data_hash(x) != data_hash(data.test):
            raise ValueError(
                f"expected runs on the grid's data, {data.spec.name} ({data.spec.support}), got {others[0].folder} on "
                f"{others[0].spec.name} ({others[0].spec.support}); try --only-runs, or the --data of the runs"
            )
        jobs = options.jobs or (cores() if device.type == "cpu" else 1)
        cells = make_cells(
            options.data,
            options.sizes,
            options.train,
            priors=options.priors,
            guides=options.guides,
            objectives=options.objectives,
            programs=options.programs,
            out=options.out,
            num_samples=options.num_samples,
            tolerance=options.tolerance,
            device=options.machine.device,
            threads=max(1, cores() // jobs),
        )
        plan = make_plan(cells, data)
        for words in dict.fromkeys(words_of(m, cell.model, data) for cell, m in plan.measures.items()):
            console.print(words, highlight=False)
        grid = [(cell.title, measure) for cell, measure in plan.measures.items()]
        check_alike(grid + [(str(run.folder), measure_of_run(run, data.test)) for run in others])
    with runs.occupied(options.out):
        _run(options, plan, cells, jobs, others, data, started)


def _run(
    options: Options,
    plan: Plan,
    cells: list[Cell],
    jobs: int,
    others: list[pv.Run],
    data: Dataset,
    started: float,
) -> None:
    results: dict[Cell, CellResult] = {}
    failed: dict[Cell, str] = {}
    there = [stands(cell) for cell in plan.cells]  # refuses a run in the way before anything is trained
    if "whole" in there:
        console.print(f"{there.count('whole')} of {len(there)} cells were finished before")
    if plan.cells:
        side_by_side = run_side_by_side(
            run_cell, plan.cells, min(jobs, len(plan.cells)), plan.cells[0].threads
        )
        with (
            progress(options.machine.quiet, "fits", len(plan.cells)) as update,
            closing(side_by_side) as running,
        ):
            for cell, result in running:
                if isinstance(result, Failure):
                    failed[cell] = result.reason
                    update(advance=1, note=f"{cell.title} failed")
                    continue
                results[cell] = result
                update(advance=1, note=f"{cell.title} IS {result.evidence['IS'].log_evidence:.2f}")
    extra: list[Entry] = []
    unwritten = [OSError(text) for r in results.values() for text in r.unwritten]
    for other in others:
        question = Question(
            data.test,
            "test",
            options.num_samples,
            options.train.seed,
            reuse=True,
            estimators=estimators_of(options.num_samples, options.tolerance),
        )
        with progress(
            options.machine.quiet, str(other.folder), options.num_samples * len(data.test)
        ) as update:
            ev, found = evaluate_run(other, question, lambda done, _total: update(completed=done))
        try:
            if not found:
                keep(other, question, ev)
        except OSError as error:
            unwritten.append(error)
        extra.append(entry_of_run(other, ev))
    table = comparison_table(cells, plan, results, extra, failed)
    title = (
        f"{data.spec.name}, test split (N = {len(data.test):,}), nats per datum, IS with K = "
        f"{options.num_samples:,}; {time.perf_counter() - started:.0f} s in all"
    )
    print_table(table, title)
    entries = [entry_of(results[c]) for c in cells if c in results] + extra
    if entries:
        save(options.out, entries, table, title, options, unwritten)
    else:
        raise NothingTrained("expected at least one cell that can be trained, got none; see above")


def save(
    out: Path,
    entries: list[Entry],
    table: Table,
    title: str,
    options: Options,
    unwritten: list[OSError],
) -> None:
    """Writes table.md, metrics.csv (all rows), pictures of the comparison and of its best program."""
    ranked = sorted(entries, key=lambda e: -e.evidence.best.log_evidence)
    best = ranked[0]
    # Prior, guide and objective name a cell of the grid; any other has one name.
    grid = all(not e.name and e.label[1] for e in entries)
    histories: dict[Any, list[Row]] = {e.label if grid else e.title: e.history for e in entries if e.history}
    pictures: list[str] = []

    def picture(name: str, make: Callable[[], Any]) -> Callable[[], None]:
        def write() -> None:
            plots.save(make(), out / name)
            pictures.append(name)

        return write

    def of_best() -> None:
        if best.folder.is_dir():
            # Trained by this command, or loaded by it with the consent that it needs.
            loaded = load_run(best.folder, options.machine.device, trust=True)
            pictures.extend(draw_pictures(loaded.pair, loaded.data, out))

    rows: list[Any] = [{"cell": e.title, **row} for e in entries for row in e.history]
    plain = json.loads(json.dumps(dataclasses.asdict(options), default=str))
    curves = {e.title: e.evidence for e in ranked[:CURVES]}
    writers: list[Callable[[], None]] = [
        lambda: write_whole(out / "table.md", markdown(table, title)),
        lambda: write_history(out / runs.HISTORY, rows),
    ]
    if histories:
        writers.append(picture("training.png", lambda: plots.plot_histories(histories)))
    writers += [
        picture("evidence.png", best.evidence.plot),
        picture("lk_curves.png", lambda: plots.plot_lk_curve(curves)),
    ]
    if not unwritten:
        writers.append(of_best)
    write_all(writers, unwritten)
    # Last: with it the comparison is finished, and not continued any more.
    runs.write_config(out, {"compare": plain, "best": best.name or best.folder.name})
    shown = ", ".join(pictures)
    console.print(f"{out}: table.md, {runs.HISTORY}, {shown} (best: {best.title})")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_script(run, Options, argv, "compare", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
