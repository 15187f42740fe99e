"""Train a model and its guide by stochastic variational inference, and keep them in a run folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from pyrovae.inference.options import DataOptions, MachineOptions, ModelOptions, TrainOptions
from pyrovae.inference.running import console, progress, run_script
from pyrovae.inference.work import train_run


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Options:
    """Options of train."""

    out: Path = Path("runs/train")
    """Run folder: config.json, weights.safetensors, metrics.csv, training.png."""
    overwrite: bool = False
    """Replace a run that is there."""
    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)


def run(options: Options) -> None:
    """Trains and saves."""
    with progress(options.machine.quiet, "epochs", options.train.epochs) as update:
        fit = train_run(
            options.out,
            options.data,
            options.model,
            options.train,
            device=options.machine.device,
            overwrite=options.overwrite,
            on_epoch=lambda row: update(
                advance=1,
                note=f"ELBO {row['elbo']:.2f} KL {row['kl']:.2f} valid {row.get('valid_elbo', float('nan')):.2f}",
            ),
        )
    best = fit.history[fit.best_epoch - 1]
    console.print(
        f"epoch {fit.best_epoch} of {len(fit.history)} kept: validation ELBO {best['valid_elbo']:.3f} nats, "
        f"KL {best['valid_kl']:.3f}, {best['valid_active_units']:.0f} active units; {fit.seconds:.1f} s; {options.out}",
        highlight=False,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_script(run, Options, argv, "train", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
