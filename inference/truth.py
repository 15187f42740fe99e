"""Hold every estimator against exact evidence: the truth table, bias orders, bounds and coverage."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

if __name__ == "__main__" and not __package__:  # the command, which hears Ctrl-C while torch is imported
    sys.exit(runpy.run_path(f"{Path(__file__).parent}/cli.py")["main"](["truth", *sys.argv[1:]]))

import tyro

from pyrovae import plots
from pyrovae.files import check_writable, write_whole
from pyrovae.inference.options.machine import FormatName
from pyrovae.inference.options.ranges import MANY
from pyrovae.inference.running.running import console, progress, run_script, write_all
from pyrovae.inference.studies.hard_posteriors import hard_rows
from pyrovae.inference.studies.truths import (
    bias_slopes,
    certificate_rate,
    closing_bounds,
    coverage_curves,
    truth_rows,
)
from pyrovae.plots import plot_coverage


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Options:
    """Options of truth."""

    RANGES: ClassVar = {"num_data": (2, MANY), "num_samples": (2, MANY), "repeats": (2, MANY)}

    out: Path = Path("runs/truth")
    """Folder for truth.md and coverage.png."""
    num_data: int = 40
    """Data of each ground truth."""
    num_samples: int = 2000
    """Importance samples K."""
    repeats: int = 1500
    """Runs behind each point of the coverage curve."""
    format: FormatName = "png"
    """Format of pictures."""
    seed: int = 0
    """Seed of data and noise."""
    quick: bool = False
    """A tenth of the work: enough to see that it runs, too little to quote."""
    quiet: bool = False
    """No progress bar."""
    debug: bool = False
    """Show the traceback of an error."""


def run(options: Options) -> None:
    """Prints and writes the tables."""
    part = 10 if options.quick else 1
    n, k, repeats = (max(8, v // part) for v in (options.num_data, options.num_samples, options.repeats))
    options.out.mkdir(parents=True, exist_ok=True)
    check_writable(options.out)
    with progress(options.quiet, "checks", 6) as update:
        lines = ["## Error / Monte-Carlo error", "", *truth_rows(n, k, options.seed)]
        update(completed=1, note="bias")
        lines += ["", "## Order of the bias in K", "", *bias_slopes(30_000 // part, options.seed)]
        update(completed=2, note="bounds")
        lines += ["", "## Forward ≤ exact ≤ reverse", "", *closing_bounds(200 // part, options.seed)]
        update(completed=3, note="certificate")
        lines += ["", "## The certificate", "", *certificate_rate(4000 // part, options.seed)]
        update(completed=4, note="coverage")
        curves = coverage_curves(repeats, options.seed)
        lines += ["", "## Intervals", "", *curves.rows]
        update(completed=5, note="own proposals")
        lines += [
            "",
            "## Proposals of each datum's own",
            "",
            *hard_rows(5000 // part, max(8, repeats // 15), 0.02, options.seed),
        ]
        update(completed=6)
    figure = plot_coverage(curves.points)
    text = "\n".join(lines) + "\n"
    print(text)
    write_all(
        [
            lambda: write_whole(options.out / "truth.md", text),
            lambda: plots.save(figure, options.out / f"coverage.{options.format}"),
        ]
    )
    console.print(f"{options.out}: truth.md, coverage.{options.format}", highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_script(run, Options, argv, "truth", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
