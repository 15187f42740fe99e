"""Score new data: ln p of each row under a trained run folder, with its error, and the least likely rows."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

if __name__ == "__main__" and not __package__:  # the command, which hears Ctrl-C while torch is imported
    sys.exit(runpy.run_path(f"{Path(__file__).parent}/cli.py")["main"](["score", *sys.argv[1:]]))

import tyro

import pyrovae as pv
from pyrovae.inference.options.applying import refuse_unasked
from pyrovae.inference.options.estimating import EstimatorOptions
from pyrovae.inference.options.ranges import MANY
from pyrovae.inference.options.suiting import check_asked, suited
from pyrovae.inference.running.new_data import NewDataOptions, opened, target_of
from pyrovae.inference.running.running import console, progress, run_script, write_all
from pyrovae.runs.scores import SUFFIXES, Scores, terms_of


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Options(NewDataOptions):
    """Options of score."""

    BASIC: ClassVar = (
        *("folder", "rows", "worst", "estimators", "num_samples", "out", "seed", "trust", "data"),
        *("device", "quiet"),
    )  # fmt: skip
    RANGES: ClassVar = {"temperatures": (2, MANY), "worst": (0, MANY)}

    worst: int = 10
    """Number of the least likely rows that are shown."""
    estimate: EstimatorOptions = field(default_factory=EstimatorOptions)


def run(options: Options) -> None:
    """Writes a .csv (or, by --out, .parquet): row, log_evidence, se, khat, ess, supported; shows the worst rows."""
    estimators = tuple(options.estimate.build())
    if options.estimate.estimators != EstimatorOptions().estimators:
        refuse_unasked(options.estimate, options.estimate.estimators)
    loaded, rows = opened(options)
    asked = suited(loaded, options.estimate, estimators)
    check_asked(options.estimate, [asked])
    target = target_of(options, "scores", SUFFIXES)
    with progress(options.machine.quiet, str(options.rows), 1) as update:
        found = pv.evidence(
            loaded.model,
            loaded.guide,
            *rows.arguments,
            estimators=asked,
            seed=options.seed,
            progress=lambda done, total: update(completed=done, total=total),
        )
    given = loaded.spec.conditions
    if given:
        found.attributes["given"] = given
    scores = Scores(rows.names, found, terms=terms_of(loaded, *rows.arguments, seed=options.seed))
    print(scores.table(options.worst))

    def write() -> None:
        scores.write(target)

    write_all([write])
    console.print(f"{target}", highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_script(run, Options, argv, "score", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
