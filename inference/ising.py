"""Train models of the Ising torus at several temperatures and measure how far they are from its exact law.

KL(p_data ‖ p_θ) with errors beside two yardsticks, free energies, heat capacity, energies and correlations of
draws; and one VAE of all temperatures, whose latent is held against the magnetisation. A study that was stopped
goes on where it was.
"""

from __future__ import annotations

import json
import math
import runpy
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

if __name__ == "__main__" and not __package__:  # the command, which hears Ctrl-C while torch is imported
    sys.exit(runpy.run_path(f"{Path(__file__).parent}/cli.py")["main"](["ising", *sys.argv[1:]]))

import tyro

from pyrovae import runs
from pyrovae.comparing import Failure, cores
from pyrovae.data import T_CRITICAL
from pyrovae.files import write_whole
from pyrovae.inference.options.machine import FormatName
from pyrovae.inference.running.running import NothingTrained, console, progress, run_script, write_all
from pyrovae.inference.studies.ising_cells import Question
from pyrovae.inference.studies.ising_recipes import RecipeName
from pyrovae.inference.studies.ising_report import tables, write_figures
from pyrovae.inference.studies.ising_study import Plan, exact_figures, make_plan, run_plan


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Options:
    """Options of ising."""

    RANGES: ClassVar = {"temperatures": (0, math.inf, "open"), "L": (2, 64)}

    out: Path = Path("runs/ising")
    """Folder for ising.json, ising.md, the figures, and a run folder for each model and temperature."""
    L: int = 8
    """Side of the torus."""
    temperatures: tuple[float, ...] = (1.5, 2.0, T_CRITICAL, 3.0, 5.0)
    """Temperatures in units of J, one training of each model at each of them."""
    models: tuple[RecipeName, ...] = ("vae", "vae-vamp", "hierarchical", "rbm")
    """Models."""
    epochs: int = 15
    """Passes over the training data, of each of them."""
    train_size: int = 20_000
    """Configurations they are trained on."""
    num_samples: int = 1000
    """Importance samples K behind the KL."""
    limit: int | None = None
    """Test data behind it (default: all 2000)."""
    draws: int = 4000
    """Configurations drawn from each model."""
    seed: int = 0
    """Seed of data, weights and noise."""
    jobs: int | None = None
    """Models trained side by side, one thread each (default: as many as cores, at most 8)."""
    quick: bool = False
    """Small data and 2 epochs: enough to see that it runs, too little to quote."""
    format: FormatName = "png"
    """Format of pictures."""
    overwrite: bool = False
    """Train anew what is there."""
    quiet: bool = False
    """No progress bar."""
    debug: bool = False
    """Show the traceback of an error."""


def run(options: Options) -> None:
    """Trains, measures, and writes tables and figures."""
    quick = options.quick
    question = Question(
        num_samples=100 if quick else options.num_samples,
        limit=200 if quick else options.limit,
        draws=300 if quick else options.draws,
        sweeps=100 if quick else 1000,
        betas=300 if quick else 5000,
        chains=100 if quick else 200,
        seed=options.seed,
    )
    temperatures = tuple(sorted(options.temperatures))
    plan = make_plan(
        options.out,
        options.L,
        temperatures,
        options.models,
        min(options.epochs, 2) if quick else options.epochs,
        min(options.train_size, 2000) if quick else options.train_size,
        question,
        options.overwrite,
        options.format,
    )
    with runs.occupied(
        options.out, overwrite=True
    ):  # cells that are there are taken, or refuse by themselves
        _run(options, plan, temperatures)


def _run(options: Options, plan: Plan, temperatures: tuple[float, ...]) -> None:
    exact = exact_figures(options.L, temperatures)
    found: list[dict[str, Any]] = []
    failed: list[str] = []
    with (
        progress(options.quiet, "models", len(plan.cells) + 1) as update,
        closing(run_plan(plan, min(8, cores()) if options.jobs is None else options.jobs)) as running,
    ):
        for cell, one in running:
            if isinstance(one, Failure):
                failed.append(f"{cell.folder.name} failed: {one.reason}")
            else:
                found.append(one)
            update(completed=len(found) + len(failed), note=cell.folder.name)
    titles = [c.folder.name for c in plan.cells]
    cells = sorted((c for c in found if "order" not in c), key=lambda c: titles.index(c["run"]))
    order = next((c for c in found if "order" in c), None)
    if not cells or order is None:
        raise NothingTrained(
            f"expected models that can be trained, got none to report on: {'; '.join(failed)}"
        )
    study = {"L": options.L, "temperatures": temperatures, "cells": cells, "order": order, "exact": exact}
    text = "\n".join([*tables(study), *(f"- {line}" for line in failed)]) + "\n"
    print(text)
    names: list[str] = []
    write_all(
        [
            lambda: write_whole(options.out / "ising.json", json.dumps(study, indent=1) + "\n"),
            lambda: write_whole(options.out / "ising.md", text),
            lambda: names.extend(write_figures(study, options.out, options.format)),
        ]
    )
    console.print(f"{options.out}: ising.json, ising.md, {', '.join(names)}", highlight=False, markup=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_script(run, Options, argv, "ising", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
