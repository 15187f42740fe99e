"""Draw from a trained run folder: samples, reconstructions, its latent space, and what it finds strange."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

if __name__ == "__main__" and not __package__:  # the command, which hears Ctrl-C while torch is imported
    sys.exit(runpy.run_path(f"{Path(__file__).parent}/cli.py")["main"](["sample", *sys.argv[1:]]))

import torch
import tyro

import pyrovae as pv
from pyrovae.files import write_whole
from pyrovae.inference.drawing.arrays import example, write_arrays
from pyrovae.inference.drawing.diffusing import diffusion_of, draw_diffusion
from pyrovae.inference.drawing.fantasies import draw_fantasies
from pyrovae.inference.drawing.pictures import (
    CLASSES,
    LEVELS,
    PICTURES,
    PictureName,
    Pictures,
)
from pyrovae.inference.options.machine import FormatName, MachineOptions
from pyrovae.inference.options.rbm_parts import machine_of
from pyrovae.inference.running.evaluating import prepare
from pyrovae.inference.running.reopening import load_run
from pyrovae.inference.running.running import console, run_script


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Options:
    """Options of sample."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Run folder of train or compare."""
    num: int = 100
    """Draws from the prior in samples.npz; up to 100 are shown."""
    num_samples: int = 500
    """Importance samples K for the evidence of single data."""
    limit: int = 1000
    """Test data whose evidence is taken, drawn at random."""
    only: tuple[PictureName, ...] = PICTURES
    """Pictures to make (default: all; of several latent sites also levels and level_samples; where labels are given,
    classes)."""
    site: str | None = None
    """Latent site of latent, manifold, traversals and interpolations (default: the first continuous vector)."""
    out: Path | None = None
    """Folder for samples.npz and pictures (default: the run folder)."""
    steps: int | None = None
    """Steps of ancestral sampling from a diffusion (default: its own T, or 250 in continuous time); Gibbs
    sweeps of a Boltzmann machine's chains, after annealing (default 1000)."""
    seed: int = 0
    """Seed of the draws."""
    trust: bool = False
    """Run the code that a run folder names (--model of train), where it is not the code that you trained it with."""
    root: Path | None = None
    """Folder of data sets, where it differs from the run's."""
    data: Path | None = None
    """File of the run's data, where it is neither where it was nor beside the run."""
    format: FormatName = "png"
    """Format of pictures."""
    machine: MachineOptions = field(default_factory=MachineOptions)


def run(options: Options) -> None:
    """Draws, saves samples.npz (x, mean, latents), of a table also samples.csv, and pictures.

    Says which were left out, and why.

    Raises:
        ValueError: a picture asked for by name that the program or data do not allow; the others are written.
    """
    pair, data, _, weights_hash = load_run(
        options.folder, options.machine.device, options.root, options.trust, options.data
    )
    out = options.out or options.folder
    diffusion, machine = diffusion_of(pair), machine_of(pair)
    _refuse_unused(options, "diffusion" if diffusion else "Boltzmann machine" if machine else "")
    prepare(out, "--out")
    how = options.num, options.steps, options.seed, weights_hash, options.format
    if diffusion is not None:
        written = draw_diffusion(pair, data, out, *how)
        console.print(f"{out}: {', '.join(written)}", highlight=False)
        return
    if machine is not None:
        written = draw_fantasies(machine, data, out, *how)
        console.print(f"{out}: {', '.join(written)}", highlight=False)
        return
    drawn = pv.simulate(pair.model, options.num, *example(data, options.num), seed=options.seed)
    arrays = {"x": drawn.x, "mean": drawn.mean} | {f"latent_{k}": v for k, v in drawn.latents.items()}
    like = example(data, options.num)[1:]
    arrays |= {f"given_{i}": t[torch.arange(options.num) % len(t)] for i, t in enumerate(like)}
    write_arrays(out / "samples.npz", arrays, weights_hash)
    names = ["samples.npz"]
    if len(data.spec.event_shape) == 1 and data.spec.columns is not None:
        names.append("samples.csv")
        write_whole(out / names[-1], pv.data.as_frame(drawn.x, data.spec).to_csv(index=False))
    pictures = Pictures(
        pair,
        data,
        options.num,
        options.num_samples,
        options.limit,
        options.site,
        options.seed,
        weights_hash,
        options.format,
    )
    only = options.only
    if only == PICTURES:
        only += (LEVELS if len(pictures.sites) > 1 and not data.spec.given else ()) + (
            CLASSES if data.spec.given else ()
        )
    names += pictures.write(out, only)
    console.print(f"{out}: {', '.join(names)}", highlight=False)
    reasons: dict[str, list[str]] = {}
    for name, why in pictures.skipped.items():
        if options.only != PICTURES:  # asked for by name
            raise ValueError(f"--only {name}: {why}")
        reasons.setdefault(why, []).append(name)
    for why, left_out in reasons.items():
        console.print(f"left out: {', '.join(left_out)}: {why}", highlight=False, markup=False)


def _refuse_unused(options: Options, kind: str) -> None:
    """Raises ValueError for an option that this kind of model does not have; "" is a program with latent sites."""
    if not kind and options.steps is not None:
        raise ValueError(
            f"expected no --steps for a model that is no diffusion or Boltzmann machine, got {options.steps}"
        )
    for name in ("num_samples", "limit", "only", "site") if kind else ():
        value = getattr(options, name)
        if value != getattr(Options, name):
            shown = " ".join(value) if isinstance(value, tuple) else value
            raise ValueError(
                f"expected no --{name.replace('_', '-')} for a {kind}, which has no pictures of latents, got {shown}"
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_script(run, Options, argv, "sample", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
