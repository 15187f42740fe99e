"""A run folder brought back: the options it was trained with, its data and its bound programs."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any, NamedTuple

from pyrovae import runs
from pyrovae.data import Dataset
from pyrovae.runs.history import read_history

from ..options.building import device_of
from ..options.machine import DeviceName
from ..options.options import TrainOptions
from ..options.pair import Pair
from ..options.stored import options_from


class Loaded(NamedTuple):
    """A run folder brought back."""

    pair: Pair
    data: Dataset
    config: dict[str, Any]
    weights_hash: str


def started_with(stored: dict[str, Any], folder: Path, *given: Any, trust: bool = False) -> list[Any]:
    """The options that the unfinished run in `folder` was started with, of the kinds of `given`.

    Raises:
        ValueError: where `given` says otherwise, in what is not a default; or code that the user has neither named
            in `given`, nor trained with, nor trusts.
    """
    found = []
    for name, options in zip(("data", "model", "train"), given, strict=True):
        was, default = options_from(type(options), stored.get(name)), type(options)()
        for f in dataclasses.fields(options):
            now, then = getattr(options, f.name), getattr(was, f.name)
            same = then, os.path.abspath(then) if f.name == "data" else then
            if now not in (getattr(default, f.name), *same):
                raise ValueError(
                    f"expected the options the run in {folder} was started with, got {f.name} = {now}, then {then}; "
                    "try --resume without it"
                )
        found.append(was)
    named = given[1].model == found[1].model
    runs.check_consent(str(found[1].model), folder, trust or named)
    return found


def further(stored: dict[str, Any], epochs: int, folder: Path) -> TrainOptions | None:
    """Options by which a run that has ended goes on, where more epochs are asked for than it had; else None.

    Its learning rate stays where it had fallen to, and its steps stay compiled, or not.

    Raises:
        ValueError: a learning rate that had fallen to 0, or a damaged history.
        FileNotFoundError: no history.
    """
    was = options_from(TrainOptions, stored.get("train"))
    if epochs <= was.epochs:
        return None
    if was.lr_schedule == "cosine" and not was.lr_end:
        raise ValueError(
            "expected a run whose learning rate goes on, got one that ended at 0 (cosine); try a new run"
        )
    if was.warmup > was.epochs:
        raise ValueError(
            f"expected a run whose KL weight had reached its end, got a warm-up of {was.warmup:g} epochs in a run of "
            f"{was.epochs}, whose best epoch is of another weight; try a new run"
        )
    compiled = read_history(folder / runs.HISTORY)[-1].get("compiled_share", 0.0) > 0
    return dataclasses.replace(
        was, epochs=epochs, lr_epochs=was.lr_epochs or was.epochs, compile="on" if compiled else "off"
    )


def load_run(
    folder: Path,
    device: DeviceName = "auto",
    root: Path | None = None,
    trust: bool = False,
    place: Path | None = None,
) -> Loaded:
    """Data and bound program of a run folder.

    Raises:
        FileNotFoundError: no run there, or a file of it is missing.
        ValueError: damaged files, weights of another architecture, or data that are not those
            the run was trained on.
    """
    run = runs.load(folder, root, device_of(device), trust=trust, data=place)
    return Loaded(Pair(run.model, run.guide), run.data, run.config, run.weights_hash)
