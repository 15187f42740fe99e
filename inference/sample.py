"""Draw from a trained run folder: samples of its prior, reconstructions, its latent space."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from pyrovae.files import replacing
from pyrovae.inference.options import MachineOptions
from pyrovae.inference.pictures import draw_pictures
from pyrovae.inference.running import console, run_script
from pyrovae.inference.work import load_run
from pyrovae.programs import simulate


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Options:
    """Options of sample."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Run folder of train or compare."""
    num: int = 100
    """Draws from the prior."""
    out: Path | None = None
    """Folder for samples.npz and pictures (default: the run folder)."""
    seed: int = 0
    """Seed of the draws."""
    root: Path | None = None
    """Folder of data sets, where it differs from the run's."""
    machine: MachineOptions = field(default_factory=MachineOptions)


def run(options: Options) -> None:
    """Draws, saves samples.npz (x, mean, latents) and pictures."""
    if options.num < 1:
        raise ValueError(f"expected --num >= 1, got {options.num}")
    pair, data, _ = load_run(options.folder, options.machine.device, options.root)
    out = options.out or options.folder
    out.mkdir(parents=True, exist_ok=True)
    like = data.train[:1].expand(options.num, *data.train.shape[1:])
    drawn = simulate(pair.model, like, seed=options.seed)
    arrays = {"x": drawn.x, "mean": drawn.mean} | {f"latent_{k}": v for k, v in drawn.latents.items()}
    with replacing(out / "samples.npz") as partial:
        np.savez(partial, **{k: v.cpu().numpy() for k, v in arrays.items()})  # type: ignore[arg-type]
    names = ["samples.npz", *draw_pictures(pair, data, out, num_samples=options.num, seed=options.seed)]
    console.print(f"{out}: {', '.join(names)}", highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_script(run, Options, argv, "sample", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
