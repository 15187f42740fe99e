"""Train a grid of priors x guides x objectives and compare ELBO with importance-sampled evidence."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tyro

from pyrovae import plots, runs
from pyrovae.files import replacing
from pyrovae.inference.building import device_of, load_data
from pyrovae.inference.grid import Cell, CellResult, cores, make_cells, make_plan, run_cells
from pyrovae.inference.options import (
    DataOptions,
    GuideName,
    LoopOptions,
    MachineOptions,
    ObjectiveName,
    PriorName,
    SizeOptions,
)
from pyrovae.inference.pictures import draw_pictures
from pyrovae.inference.running import console, progress, run_script
from pyrovae.inference.table import Table, comparison_table, markdown, print_table
from pyrovae.inference.work import load_run
from pyrovae.training.fit import Row

CURVES = 6  # more L_K curves than this cannot be told apart


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Options:
    """Options of compare."""

    priors: tuple[PriorName, ...] = ("standard", "mixture", "vamp")
    """Priors of the grid."""
    guides: tuple[GuideName, ...] = ("diagonal", "full", "flow")
    """Guides of the grid."""
    objectives: tuple[ObjectiveName, ...] = ("trace-elbo", "mean-field")
    """Objectives; one that is not valid for a program is refused for it, with the reason."""
    programs: tuple[str, ...] = ()
    """Programs of your own beside the grid: package.module:attribute or file.py:attribute."""
    num_samples: int = 5000
    """Importance samples K per test datum."""
    out: Path = Path("runs/compare")
    """Run folder: table.md, metrics.csv, pictures, and a run folder for every cell."""
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
    data = load_data(options.data, device)
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
        device=options.machine.device,
        threads=max(1, cores() // jobs),
    )
    runs.create(options.out)
    plan = make_plan(cells, data)
    results: dict[Cell, CellResult] = {}
    with progress(options.machine.quiet, "fits", len(plan.cells)) as update:
        for result in run_cells(plan.cells, min(jobs, len(plan.cells))):
            results[result.cell] = result
            update(advance=1, note=f"{result.cell.title} IS {result.evidence['IS'].log_evidence:.2f}")
    table = comparison_table(cells, plan, results)
    title = (
        f"{data.spec.name}, test split (N = {len(data.test):,}), nats per datum, IS with K = "
        f"{options.num_samples:,}; {time.perf_counter() - started:.0f} s in all"
    )
    print_table(table, title)
    save(options.out, [results[c] for c in cells if c in results], table, title, options)


def save(out: Path, results: list[CellResult], table: Table, title: str, options: Options) -> None:
    """Writes table.md, metrics.csv (all cells), pictures of the comparison and of its best cell."""
    with replacing(out / "table.md") as partial:
        partial.write_text(markdown(table, title))
    rows = [{"cell": r.cell.title, **row} for r in results for row in r.history]
    with replacing(out / runs.HISTORY) as partial, partial.open("w", newline="") as f:
        writer = csv.DictWriter(f, list(dict.fromkeys(k for row in rows for k in row)))
        writer.writeheader()
        writer.writerows(rows)
    ranked = sorted(results, key=lambda r: -r.evidence["IS"].log_evidence)
    best = ranked[0]
    grid = all(r.cell.model.model == "vae" for r in results)
    histories: dict[Any, list[Row]] = {r.cell.label if grid else r.cell.title: r.history for r in results}
    plots.save(plots.plot_histories(histories), out / "training.png")
    plots.save(best.evidence.plot(), out / "evidence.png")
    curves = {r.cell.title: r.evidence for r in ranked[:CURVES]}
    plots.save(plots.plot_lk_curve(curves), out / "lk_curves.png")
    pair, data, _ = load_run(best.cell.out, options.machine.device)
    names = draw_pictures(pair, data, out)
    pictures = ", ".join(["training.png", "evidence.png", "lk_curves.png", *names])
    console.print(f"{out}: table.md, {runs.HISTORY}, {pictures} (best: {best.cell.title})", highlight=False)
    plain = json.loads(json.dumps(dataclasses.asdict(options), default=str))
    runs.write_config(out, {"compare": plain, "best": best.cell.out.name})


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_script(run, Options, argv, "compare", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
