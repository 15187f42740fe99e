"""Data whose every datum is one number, `[N]`: x of the shape `[N, *event]` with an empty event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from ..dataset import SPLITS, Dataset
from ..hashing import content_hash
from ..loading import load

_ROWS = ("x", *SPLITS)


def load_with_scalars(given: Any) -> Dataset:
    """The data set of what `pv.data.load` takes, and of arrays `[N]`, whose data are then scalars as they were given.

    Raises:
        FileNotFoundError, ValueError: as `pv.data.load`.
    """
    if _is_scalars(given):
        return _without_columns(load(given[:, None]))
    if isinstance(given, Mapping):
        rows = [k for k in given if k in _ROWS]
        if rows and all(_is_scalars(given[k]) for k in rows):
            return _without_columns(load({k: v[:, None] if k in rows else v for k, v in given.items()}))
    return load(given)


def _is_scalars(given: Any) -> bool:
    return isinstance(given, Tensor | np.ndarray) and given.ndim == 1


def _without_columns(data: Dataset) -> Dataset:
    splits = {name: data.split(name)[:, 0].contiguous() for name in SPLITS}
    spec = replace(data.spec, event_shape=(), hash=content_hash(splits))
    return replace(data, train=splits["train"], valid=splits["valid"], test=splits["test"], spec=spec)
