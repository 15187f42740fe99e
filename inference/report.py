"""One HTML page a run folder, without network or scripts: what was trained, evidence, figures, configuration."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

if __name__ == "__main__" and not __package__:  # the command, which hears Ctrl-C while torch is imported
    sys.exit(runpy.run_path(f"{Path(__file__).parent}/cli.py")["main"](["report", *sys.argv[1:]]))

import tyro

from pyrovae.inference.options.applying import refuse_unasked
from pyrovae.inference.options.building import device_of
from pyrovae.inference.options.estimating import EstimatorOptions
from pyrovae.inference.options.machine import MachineOptions
from pyrovae.inference.options.ranges import MANY
from pyrovae.inference.options.suiting import check_asked, suited
from pyrovae.inference.running.evaluating import load_runs, place_of, prepare
from pyrovae.inference.running.running import console, progress, run_script

PAGE = "report.html"


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Options:
    """Options of report."""

    BASIC: ClassVar = (
        *("folders", "estimators", "num_samples", "tolerance", "limit", "seed"),
        *("trust", "out_dir", "device", "quiet"),
    )  # fmt: skip
    RANGES: ClassVar = {"temperatures": (2, MANY)}

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders of train, compare or pv.save."""
    limit: int | None = None
    """Only so many data of the test split, drawn under a fixed seed."""
    seed: int = 0
    """Seed of the draws."""
    estimate: EstimatorOptions = field(default_factory=EstimatorOptions)
    trust: bool = False
    """Run the code that a run folder names (--model of train), where it is not the code that you trained it with."""
    root: Path | None = None
    """Folder of data sets, where it differs from the run's."""
    out_dir: Path | None = None
    """Folder for the pages, each in a folder of its run's name (default: the run folder itself)."""
    machine: MachineOptions = field(default_factory=MachineOptions)


def run(options: Options) -> None:
    """Writes report.html into each run folder, or --out-dir."""
    if not options.folders:
        raise ValueError("expected at least one run folder, got none; try pyrovae report runs/train")
    estimators = tuple(options.estimate.build())
    if options.estimate.estimators != EstimatorOptions().estimators:
        refuse_unasked(options.estimate, options.estimate.estimators)
    device = device_of(options.machine.device)
    loaded, rows = load_runs(options.folders, options.root, device, "test", options.limit, options.trust)
    suiting = [suited(one, options.estimate, estimators) for one in loaded]
    check_asked(options.estimate, suiting)
    places = [place_of(one, options.out_dir) for one in loaded]
    if len(set(places)) < len(places):
        raise ValueError("expected run folders of different names with --out-dir, got two of one name")
    for place in places:
        prepare(place)
    given = () if options.limit is None else rows
    label = loaded[0].spec.title("test", len(rows[0]))
    for one, place, asked in zip(loaded, places, suiting, strict=True):
        with progress(options.machine.quiet, f"evidence of {one.folder}", 1) as update:

            def advance(done: int, total: int) -> None:
                update(completed=done, total=total)

            one.report(
                place / PAGE,
                *given,
                estimators=list(asked),
                seed=options.seed,
                label=label,
                progress=advance,
            )
        console.print(f"{place / PAGE}", highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_script(run, Options, argv, "report", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
