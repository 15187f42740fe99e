"""A run folder brought back: the options it was trained with, its data and its bound programs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from pyrovae import runs
from pyrovae.data import Dataset

from ..options.building import device_of
from ..options.machine import DeviceName
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
            if now not in (getattr(default, f.name), then):
                raise ValueError(
                    f"expected the options the run in {folder} was started with, got {f.name} = {now}, then {then}; "
                    "try --resume without it"
                )
        found.append(was)
    named = given[1].model == found[1].model
    runs.check_consent(str(found[1].model), folder, trust or named)
    return found


def load_run(
    folder: Path, device: DeviceName = "auto", root: Path | None = None, trust: bool = False
) -> Loaded:
    """Data and bound program of a run folder.

    Raises:
        FileNotFoundError: no run there, or a file of it is missing.
        ValueError: damaged files, weights of another architecture, or data that are not those
            the run was trained on.
    """
    run = runs.load(folder, root, device_of(device), trust=trust)
    return Loaded(Pair(run.model, run.guide), run.data, run.config, run.weights_hash)
