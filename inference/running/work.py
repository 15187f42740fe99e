"""Training into a run folder."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

import pyrovae as pv
from pyrovae import plots, runs
from pyrovae.data import Dataset
from pyrovae.distributed import Split, World
from pyrovae.training import Checkpoints
from pyrovae.training.logging.history import Row
from pyrovae.training.logging.scalars import tensorboard_writer

from ..options.building import build, build_objective, device_of, load_data
from ..options.machine import DeviceName, KeepOptions
from ..options.measuring import measured, words_of
from ..options.options import DataOptions, ModelOptions, TrainOptions
from ..options.rbm_parts import PHASES, phase_objective
from ..options.schedules import schedules

WITHOUT_CHECKPOINTS = KeepOptions(checkpoint_every=0)


def train_run(
    out: Path,
    data_options: DataOptions,
    model_options: ModelOptions,
    train_options: TrainOptions,
    *,
    device: DeviceName = "auto",
    overwrite: bool = False,
    keep: KeepOptions = WITHOUT_CHECKPOINTS,
    on_epoch: Callable[[Row], None] | None = None,
    on_end: Callable[[pv.Fit], None] | None = None,
    data: Dataset | None = None,
    split: Split | None = None,
    announce: Callable[[str], None] | None = None,
) -> pv.Fit:
    """Trains, and writes config, weights, history and training curves to `out` (the first rank does).

    unfinished.json is there, with the options, from before the first step until all else is
    written: a folder that has config.json and not that one is whole.
    """
    options = plain_options(data_options, model_options, train_options)
    world = World() if split is None else split.world
    if not world.first:  # the first rank has the folder
        with world.together():
            pass
        with world.together():
            data = data if data is not None else load_data(data_options, device_of(device))
            pair = build(model_options, data, train_options.seed)
        return pv.fit(*pair, data, split=split, **fit_options(train_options, keep))
    with ExitStack() as stack:
        with world.together():
            folder = stack.enter_context(runs.occupied(out, overwrite, keep.resume))
            if not overwrite:
                runs.check_strays(folder)
        return _train_in(
            folder,
            options,
            model_options,
            train_options,
            keep,
            on_epoch,
            on_end,
            announce,
            split,
            world,
            lambda: data if data is not None else load_data(data_options, device_of(device)),
        )


def _train_in(
    folder: Path,
    options: dict[str, Any],
    model_options: ModelOptions,
    train_options: TrainOptions,
    keep: KeepOptions,
    on_epoch: Callable[[Row], None] | None,
    on_end: Callable[[pv.Fit], None] | None,
    announce: Callable[[str], None] | None,
    split: Split | None,
    world: World,
    load: Callable[[], Dataset],
) -> pv.Fit:
    store, started = Checkpoints(folder / runs.CHECKPOINTS, keep.keep), False
    former = (folder / runs.HISTORY).exists()

    def each_epoch(row: Row) -> None:
        nonlocal started
        started = True
        (folder / runs.CONFIG).unlink(missing_ok=True)  # of a run that is overwritten
        for follow in (on_epoch, scalars):
            if follow is not None:
                follow(row)

    resume = keep.resume and runs.is_unfinished(folder)
    if resume and not keep.checkpoint_every and store.files():
        raise ValueError(
            "expected --checkpoint-every >= 1 with --resume of a run that has checkpoints, got 0, which would start it "
            "anew; try --overwrite for that"
        )
    try:
        with world.together():
            scalars = tensorboard_writer(folder / "tensorboard") if keep.tensorboard else None
            data = load()
            pair = build(model_options, data, train_options.seed)
            how = fit_options(train_options, keep)
            if announce is not None:
                announce(words_of(measured(pair, data), model_options, data))
            runs.record_code(model_options.model)
            if not resume:
                store.clear()
                runs.write_config(folder, options, runs.UNFINISHED)
        fit = pv.fit(
            *pair,
            data,
            checkpoint=store.folder if keep.checkpoint_every else None,
            resume=resume and keep.checkpoint_every > 0,
            log=folder / runs.HISTORY,
            on_epoch=each_epoch,
            split=split,
            **how,
        )
    except BaseException:
        # With a checkpoint the run is unfinished; without one there is no run.
        if not store.files() and not resume:
            (folder / runs.UNFINISHED).unlink(missing_ok=True)
            if started or not former:
                (folder / runs.HISTORY).unlink(missing_ok=True)
        raise
    if on_end is not None:  # before anything is written: a full disk costs files, and not what was found
        on_end(fit)
    (folder / runs.CONFIG).unlink(missing_ok=True)
    runs.save_weights(folder / runs.WEIGHTS, fit.store, fit.modules)
    runs.remove_results(folder)
    fit.write_csv(folder / runs.HISTORY)
    draw: Any = plots.plot_training if "elbo" in fit.history[0] else plots.plot_phases
    plots.save(draw(fit.history, best_epoch=fit.best_epoch), folder / "training.png")
    runs.write_config(
        folder,
        {**options, "spec": data.spec.to_json(), "best_epoch": fit.best_epoch, "seconds": fit.seconds},
    )
    (folder / runs.UNFINISHED).unlink()
    store.clear()
    return fit


def fit_options(train: TrainOptions, keep: KeepOptions) -> dict[str, Any]:
    """Arguments that all ranks give to `pv.fit`."""
    return {
        "objective": phase_objective(train)
        if train.objective in PHASES
        else build_objective(train.objective, train.particles),
        "epochs": train.epochs,
        "batch_size": train.batch_size,
        "free_bits": train.free_bits,
        "patience": train.patience,
        "clip_norm": train.clip_norm,
        "ema": train.ema,
        "optim": decaying(train.weight_decay),
        "max_returns": train.max_returns,
        "compile": {"auto": "auto", "on": True, "off": False}[train.compile],
        "seed": train.seed,
        "checkpoint_every": max(1, keep.checkpoint_every),
        "keep": keep.keep,
        **schedules(train),
    }


def decaying(weight_decay: float) -> Any:
    """AdamW; None, the default of `pv.fit`, without decay.

    Raises:
        ValueError: a decay below 0.
    """
    if not 0 <= weight_decay < math.inf:
        raise ValueError(f"expected --weight-decay >= 0, got {weight_decay}")
    return functools.partial(torch.optim.AdamW, eps=1e-7, weight_decay=weight_decay) if weight_decay else None


def plain_options(data: DataOptions, model: ModelOptions, train: TrainOptions) -> dict[str, Any]:
    """Options as they stand in a configuration: JSON's types alone; with the hash of the user's code, if it is that."""
    named = {"data": data, "model": model, "train": train}
    plain: dict[str, Any] = json.loads(json.dumps({k: _plain(v) for k, v in named.items()}))
    if model.model not in runs.BUILT_IN:  # by its hash, a run of other code under the same name is told apart
        plain["code"] = runs.find(model.model).key()
    return plain


def _plain(options: Any) -> dict[str, Any]:
    return {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(options).items()}
