"""Train a model and its guide by stochastic variational inference, and keep them in a run folder."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from pyrovae import runs
from pyrovae.inference.options import DataOptions, KeepOptions, MachineOptions, ModelOptions, TrainOptions
from pyrovae.inference.running import console, progress, run_script
from pyrovae.inference.work import started_with, train_run


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
    keep: KeepOptions = field(default_factory=KeepOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)


def run(options: Options) -> None:
    """Trains and saves."""
    data, model, train = options.data, options.model, options.train
    if options.keep.resume and runs.is_unfinished(options.out):
        data, model, train = started_with(options.out, data, model, train)
    elif options.keep.resume:
        console.print(f"no unfinished run in {options.out}: a new one starts", highlight=False)
    try:
        with progress(options.machine.quiet, "epochs", train.epochs) as update:
            fit = train_run(
                options.out,
                data,
                model,
                train,
                device=options.machine.device,
                overwrite=options.overwrite,
                keep=options.keep,
                on_epoch=lambda row: update(
                    completed=row["epoch"],
                    note=f"ELBO {row['elbo']:.2f} KL {row['kl']:.2f} valid {row.get('valid_elbo', math.nan):.2f}",
                ),
            )
    except KeyboardInterrupt:
        if runs.is_unfinished(options.out):
            print(f"stopped at a checkpoint; to continue: {_resuming(options)}", file=sys.stderr)
        raise
    best = fit.history[fit.best_epoch - 1]
    console.print(
        f"epoch {fit.best_epoch} of {len(fit.history)} kept: validation ELBO {best['valid_elbo']:.3f} nats, "
        f"KL {best['valid_kl']:.3f}, {best['valid_active_units']:.0f} active units; {fit.seconds:.1f} s; {options.out}",
        highlight=False,
    )


def _resuming(options: Options) -> str:
    words = ["pyrovae", "train", "--out", str(options.out), "--resume"]
    default = Options()
    if options.machine.device != default.machine.device:
        words += ["--device", options.machine.device]
    for name in ("checkpoint_every", "keep"):
        if getattr(options.keep, name) != getattr(default.keep, name):
            words += [f"--{name.replace('_', '-')}", str(getattr(options.keep, name))]
    return shlex.join(words + ["--tensorboard"] * options.keep.tensorboard)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_script(run, Options, argv, "train", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
