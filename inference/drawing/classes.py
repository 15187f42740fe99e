"""Samples of each class, of models that are given labels."""

from __future__ import annotations

import torch
from torch import Tensor

import pyrovae as pv
from pyrovae.data import Dataset
from pyrovae.data.given.classes import num_classes
from pyrovae.data.given.conditioned import LABEL
from pyrovae.data.spec import KNOWN

from ..options.pair import Pair

MOST = 20  # classes in a picture


def class_samples(pair: Pair, data: Dataset, each: int, seed: int) -> tuple[list[Tensor], list[str]]:
    """Means of so many draws of each class `[each, *event]`, and the names of the classes.

    The same noise serves each class, so that a column shows one z under all of them.

    Raises:
        ValueError: a model that is given no label, or more than the label.
    """
    if data.spec.given not in ((LABEL,), (KNOWN,)):
        raise ValueError(
            f"expected a model that is given a label, got one of {', '.join(data.spec.given) or 'x'} alone"
        )
    number = min(num_classes(data), MOST)
    like = data.train[:1].expand(each, *data.spec.event_shape)
    rows = []
    for c in range(number):
        given = torch.full((each,), c, device=data.train.device)
        if data.spec.given == (LABEL,):
            width = data.arguments("train")[1].shape[1]
            given = torch.nn.functional.one_hot(given, width).to(data.train.dtype)
        rows.append(pv.simulate(pair.model, each, like, given, seed=seed).mean)
    return rows, list(data.classes or map(str, range(number)))[:number]
