"""Train a model and its guide by stochastic variational inference, and keep them in a run folder.

Under torchrun on several GPUs or machines; with --max-restarts it goes on from its last checkpoint.
"""

from __future__ import annotations

import functools
import json
import runpy
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import ClassVar

if __name__ == "__main__" and not __package__:  # the command, which hears Ctrl-C while torch is imported
    sys.exit(runpy.run_path(f"{Path(__file__).parent}/cli.py")["main"](["train", *sys.argv[1:]]))

import tyro

from pyrovae import runs
from pyrovae.data import Dataset, DataSpec
from pyrovae.distributed import Split, World, joined
from pyrovae.inference.options.applying import refuse_unused
from pyrovae.inference.options.building import absolute, device_of
from pyrovae.inference.options.machine import FormatName, KeepOptions, MachineOptions, RankOptions
from pyrovae.inference.options.options import DataOptions, ModelOptions, TrainOptions
from pyrovae.inference.running.reopening import further, started_with
from pyrovae.inference.running.running import console, progress, run_script
from pyrovae.inference.running.summary import kept, note_of
from pyrovae.inference.running.work import train_run
from pyrovae.runs.data import check_same
from pyrovae.runs.weights import check_program


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Options:
    """Options of train."""

    BASIC: ClassVar = (
        *("out", "data", "binarise", "model", "preset", "likelihood", "network", "latent_dim", "hidden"),
        *("prior", "guide", "objective", "epochs", "batch_size", "lr", "beta", "particles", "seed"),
        *("resume", "device", "quiet"),
    )  # fmt: skip

    out: Path = Path("runs/train")
    """Run folder: config.json, weights.safetensors, metrics.csv, picture of the training."""
    overwrite: bool = False
    """Replace a run that is there."""
    trust: bool = False
    """With --resume: run the code that the folder in --out names, where another user has started it, or the code has
    changed since."""
    format: FormatName = "png"
    """Format of pictures."""
    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    keep: KeepOptions = field(default_factory=KeepOptions)
    ranks: RankOptions = field(default_factory=RankOptions)
    machine: MachineOptions = field(default_factory=MachineOptions)


def run(options: Options, typed: bool = True) -> None:
    """Trains and saves, in all processes that torchrun has started; `typed`: whether `--epochs` was."""
    with joined(options.machine.device, options.ranks.rank_timeout) as world:
        ranks = options.ranks
        divided = world is not None or ranks.accumulate > 1 or ranks.bitwise
        split = Split(world or World(), ranks.accumulate, ranks.bitwise) if divided else None
        if world is not None and world.restarts:  # torchrun has started the processes anew
            options = replace(options, keep=replace(options.keep, resume=True))
        _run(options, split, typed)


def _run(options: Options, split: Split | None, typed: bool) -> None:
    data, model, train = absolute(options.data), options.model, options.train
    given: Dataset | None = None
    world = World() if split is None else split.world
    continues = False
    if options.keep.resume:
        stored, ended_before = None, False
        with world.together():
            if world.first and not world.restarts and not options.out.is_dir():
                raise FileNotFoundError(
                    f"expected a folder with a run to resume for --out, got {options.out}, which does not exist; try "
                    "it without --resume"
                )
        with world.together():  # the first rank's folder counts
            if world.first and runs.is_unfinished(options.out):
                stored = runs.read_config(options.out, runs.UNFINISHED)
            elif world.first and (options.out / runs.CONFIG).is_file() and not options.overwrite:
                former = runs.read_config(options.out)
                more = further(former, train.epochs, options.out) if typed else None
                if more is not None:
                    if (options.out / runs.WEIGHTS).is_file():
                        check_program(options.out / runs.WEIGHTS, former)
                    plain = json.loads(json.dumps(asdict(more)))
                    stored, continues = former | {"train": plain}, True
                    train = replace(train, lr_epochs=more.lr_epochs, compile=more.compile)
                else:  # nothing runs: it is only said that these options were those of the run
                    started_with(former, options.out, data, model, train, trust=True)
                    ended_before = True
        stored, ended_before, continues = world.share_json([stored, ended_before, continues])
        if ended_before:
            console.print(
                f"the run in {options.out} has ended: there is nothing to continue; --epochs with more of them does"
            )
            return
        if stored is not None:
            with world.together():
                data, model, train = started_with(
                    stored, options.out, data, model, train, trust=options.trust or not world.first
                )
                device = device_of(options.machine.device)
                given = runs.load_again(stored["data"], options.data.root, options.out).to(device)
                if "spec" in stored:  # of a run that had ended
                    check_same(DataSpec.from_json(stored["spec"]), given, options.out, stored)
        else:
            console.print(f"no unfinished run in {options.out}: a new one starts", highlight=False)
    refuse_unused([model], [train])
    ended: list[str] = []
    try:
        with progress(options.machine.quiet, "epochs", train.epochs) as update:

            def announce(words: str) -> None:  # options and data have been found right
                console.print(words, highlight=False)
                update()

            train_run(
                options.out,
                data,
                model,
                train,
                device=options.machine.device,
                overwrite=options.overwrite,
                data=given,
                keep=options.keep,
                continues=continues,
                format=options.format,
                split=split,
                announce=announce,
                on_end=lambda fit: ended.append(f"{kept(fit)}; {fit.seconds:.1f} s"),
                on_epoch=lambda row: update(
                    completed=row["epoch"],
                    note=note_of(row),
                ),
            )
    except KeyboardInterrupt:
        if runs.is_unfinished(options.out):
            print(f"stopped at a checkpoint; to continue: {_resuming(options)}", file=sys.stderr)
        raise
    except OSError:
        for line in ended:
            console.print(line, highlight=False, markup=False)
        if ended and runs.is_unfinished(options.out):
            print(f"trained, but not all is written; with more room: {_resuming(options)}", file=sys.stderr)
        raise
    for line in ended:
        console.print(f"{line}; {options.out}", highlight=False, markup=False)


def _resuming(options: Options) -> str:
    words = ["pyrovae", "train", "--out", str(options.out), "--resume"]
    default = Options()
    if options.format != default.format:
        words += ["--format", options.format]
    if options.machine.device != default.machine.device:
        words += ["--device", options.machine.device]
    for name in ("checkpoint_every", "keep"):
        if getattr(options.keep, name) != getattr(default.keep, name):
            words += [f"--{name.replace('_', '-')}", str(getattr(options.keep, name))]
    if options.ranks.accumulate != 1:
        words += ["--accumulate", str(options.ranks.accumulate)]
    return shlex.join(
        words + ["--bitwise"] * options.ranks.bitwise + ["--tensorboard"] * options.keep.tensorboard
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    words = sys.argv[1:] if argv is None else argv
    typed = any(word.partition("=")[0] == "--epochs" for word in words)
    return run_script(functools.partial(run, typed=typed), Options, argv, "train", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
