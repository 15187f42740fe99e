"""Loss of the ELBO of a trained run folder, in nats: by the guide's family, or by its amortisation."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

if __name__ == "__main__" and not __package__:  # the command, which hears Ctrl-C while torch is imported
    sys.exit(runpy.run_path(f"{Path(__file__).parent}/cli.py")["main"](["gaps", *sys.argv[1:]]))

import tyro
from torch import Tensor

import pyrovae as pv
from pyrovae import plots
from pyrovae.evidence import Sharing
from pyrovae.evidence.core.compile_when import DRAWS
from pyrovae.evidence.data_hash import data_hash
from pyrovae.files import write_whole
from pyrovae.inference.options.applying import refuse_unasked
from pyrovae.inference.options.building import device_of
from pyrovae.inference.options.estimating import EstimatorName, EstimatorOptions
from pyrovae.inference.options.machine import FormatName, MachineOptions
from pyrovae.inference.options.ranges import MANY
from pyrovae.inference.running.attending import attending, remove
from pyrovae.inference.running.evaluating import PARTIAL, CompileName, load_runs, place_of, prepare
from pyrovae.inference.running.running import console, progress, run_script, write_all
from pyrovae.json_files import read_json
from pyrovae.text import visible


@dataclass(frozen=True)
class GapEstimators(EstimatorOptions):
    """Estimators of ln p(x); the highest lower bound serves (importance sampling from the optimised guides too)."""

    estimators: tuple[EstimatorName, ...] = ("is",)
    """is, ais, exact: several may be named."""


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Options:
    """Options of gaps."""

    BASIC: ClassVar = (
        *("folder", "split", "limit", "steps", "particles", "draws", "estimators", "num_samples", "seed"),
        *("resume", "trust", "markdown", "out_dir", "device", "quiet"),
    )  # fmt: skip
    RANGES: ClassVar = {"temperatures": (2, MANY), "particles": (2, MANY)}

    folder: Annotated[Path, tyro.conf.Positional]
    """Run folder of train, compare or pv.save."""
    split: Literal["train", "valid", "test"] = "test"
    """Data to look at."""
    limit: int | None = 200
    """Only so many data, drawn under a fixed seed."""
    steps: int = 1000
    """Optimisation steps of each datum's own guide."""
    particles: int = 16
    """Draws per datum and step."""
    lr: float = 0.03
    """First learning rate; it falls to 0."""
    flow: bool = True
    """Optimise the richer family too."""
    draws: int = 1000
    """Fresh draws per datum of each ELBO."""
    estimate: GapEstimators = field(default_factory=GapEstimators)
    seed: int = 0
    """Seed of the noise."""
    compile: CompileName = "auto"
    """Run gradients and log-weights as compiled graphs; auto does so in long runs."""
    resume: bool = False
    """Keep partial results in the run folder (partial/), and go on from those of a command that was killed: to the
    same numbers."""
    shared: bool = False
    """Compute together with other processes: the same command on any number of machines that share the run folder
    takes chunks of the data that nobody has. evaluate --status shows how far they are."""
    claim_expiry: float = 60.0
    """Seconds without a sign of life after which a chunk of a process that died is taken by another one."""
    label: str | None = None
    """Name of the data, for the table (default: name, split and binarisation)."""
    trust: bool = False
    """Run the code that a run folder names (--model of train), where it is not the code that you trained it with."""
    root: Path | None = None
    """Folder of data sets, where it differs from the run's."""
    markdown: bool = False
    """Print the table as Markdown."""
    out_dir: Path | None = None
    """Folder for what is written, in a folder of the run's name (default: the run folder itself)."""
    format: FormatName = "png"
    """Format of pictures."""
    machine: MachineOptions = field(default_factory=MachineOptions)


def run(options: Options) -> None:
    """Writes gaps.png, gaps.md and gaps.json into the run folder, or --out-dir."""
    fit = pv.LocalFit(options.steps, options.particles, options.lr)
    estimators = options.estimate.build()
    refuse_unasked(options.estimate, options.estimate.estimators)
    if not options.shared and options.claim_expiry != Options.claim_expiry:
        raise ValueError(
            f"expected --claim-expiry with --shared alone, got {options.claim_expiry:g}; try --shared, or leave it out"
        )
    (loaded,), rows = load_runs(
        [options.folder],
        options.root,
        device_of(options.machine.device),
        options.split,
        options.limit,
        options.trust,
    )
    place = place_of(loaded, options.out_dir)
    prepare(place)
    # What figures depend on: who comes late to a shared command shows what the others have found.
    asked = repr((fit, estimators, options.flow, options.draws, options.seed, data_hash(*rows), loaded.code))
    partial = place / PARTIAL
    with ExitStack() as stack:
        here = stack.enter_context(attending(partial, options.claim_expiry)) if options.shared else None
        if options.shared and _kept(place) == (loaded.weights_hash, asked):
            console.print(f"{place}: gaps.md, of these very weights and options")
            print(visible((place / "gaps.md").read_text(encoding="utf-8"), "\n"))
            return
        gaps = _measured(options, loaded, rows, fit, estimators, partial)
        print(gaps.table("markdown" if options.markdown else "terminal"))
        about = {"weights_hash": loaded.weights_hash, "asked": asked}
        figures = json.dumps(gaps.summary() | about, indent=1)
        write_all(
            [
                lambda: plots.save(
                    gaps.plot(loaded.label[1]), place / f"gaps.{options.format}", loaded.weights_hash
                ),
                lambda: write_whole(place / "gaps.md", gaps.table("markdown")),
                lambda: write_whole(place / "gaps.json", figures),
            ]
        )
        remove(gaps.partials, here)
    console.print(f"{place}: gaps.{options.format}, gaps.md, gaps.json", highlight=False)


def _kept(place: Path) -> tuple[Any, Any]:
    """Weights and question that gaps.json belongs to; empty where it cannot be read."""
    try:
        found = read_json(place / "gaps.json")
        return found.get("weights_hash"), found.get("asked")
    except (OSError, ValueError, AttributeError):
        return None, None


def _measured(
    options: Options,
    loaded: pv.Run,
    rows: tuple[Tensor, ...],
    fit: pv.LocalFit,
    estimators: list[Any],
    partial: Path,
) -> pv.Gaps:
    draws = len(rows[0]) * options.steps * options.particles
    with progress(options.machine.quiet, "weights, then optimisation steps", 1) as update:
        return pv.gaps(
            loaded.model,
            loaded.guide,
            *rows,
            estimators=estimators,
            fit=fit,
            flow=options.flow,
            num_samples=options.draws,
            seed=options.seed,
            compile=options.compile == "on" or (options.compile == "auto" and draws >= DRAWS),
            label=options.label or loaded.spec.title(options.split, len(rows[0])),
            progress=lambda done, total: update(completed=done, total=total),
            resume=partial if options.resume or options.shared else None,
            sharing=Sharing(options.claim_expiry) if options.shared else None,
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_script(run, Options, argv, "gaps", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
