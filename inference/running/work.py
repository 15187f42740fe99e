"""Training into a run folder."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import pyrovae as pv
from pyrovae import runs, training
from pyrovae.data import Dataset
from pyrovae.data.given.classes import classes_text
from pyrovae.distributed import Split
from pyrovae.training.logging.history import Row

from ..options.building import build, build_objective, device_of, load_data
from ..options.given.semi_supervised import own_objective
from ..options.machine import DeviceName, FormatName, KeepOptions
from ..options.measuring import columns_of, measured, words_of
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
    continues: bool = False,
    format: FormatName = "png",
) -> pv.Fit:
    """Trains what the options name into the run folder `out`; see `training.train_into`."""

    made: list[tuple[Any, Dataset]] = []

    def build_pair(found: Dataset) -> Any:
        pair = build(model_options, found, train_options.seed)
        made[:] = [(pair, found)]
        return pair

    def tell(pair: Any, found: Dataset) -> None:
        if announce is not None:
            words = words_of(measured(pair, found), model_options, found)
            announce("\n".join(filter(None, (columns_of(found), classes_text(found), words))))

    return training.train_into(
        out,
        plain_options(data_options, model_options, train_options),
        lambda: data if data is not None else load_data(data_options, device_of(device)),
        build_pair,
        lambda: fit_options(train_options) | own_objective(*made[0], train_options),
        code=model_options.model,
        overwrite=overwrite,
        resume=keep.resume,
        continues=continues,
        checkpoint_every=keep.checkpoint_every,
        keep=keep.keep,
        tensorboard=keep.tensorboard,
        format=format,
        split=split,
        announce=tell,
        on_epoch=on_epoch,
        on_end=on_end,
    )


def fit_options(train: TrainOptions) -> dict[str, Any]:
    """Arguments of `pv.fit` that the options name."""
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
