"""Grey values to bits: one draw, a threshold, or a new draw every epoch."""

from typing import get_args

import torch
from torch import Tensor

from . import seeds
from .raw import Raw
from .spec import Binarisation

CHOICES = ("dynamic", "static", "threshold")
STREAMS = {"train": seeds.TRAIN, "valid": seeds.VALID, "test": seeds.TEST}

assert set(CHOICES) < set(get_args(Binarisation))


def bernoulli(p: Tensor, random: torch.Generator) -> Tensor:
    """Draw of independent bits with the probabilities `p` (any shape), as 0. and 1. in float32."""
    # rand < 1 always, so p = 0 and p = 1 are certain.
    return (torch.rand(p.shape, generator=random, device=p.device) < p).to(torch.float32)


def check_binarise(binarise: str | None) -> None:
    """Refuse an unknown way to binarise.

    Raises:
        ValueError: Naming the choices.
    """
    if binarise is not None and binarise not in CHOICES:
        raise ValueError(f"expected binarise to be None or one of {', '.join(CHOICES)}, got {binarise!r}")


def binarised(raw: Raw, binarise: Binarisation, seed: int) -> tuple[Raw, Tensor | None]:
    """Binary version of grey data, and the probabilities to redraw the training data from.

    A grey level x becomes the probability x / (levels - 1); values in [0, 1] are probabilities as they
    are. "static" is one draw with the seed, "threshold" is p > 0.5, and "dynamic" starts from the same
    draw as "static" but keeps the training data's probabilities `[N, *event_shape]`.

    Raises:
        ValueError: If the data are binary already, or neither grey levels nor in [0, 1].
    """
    if raw.support == "binary":
        raise ValueError(
            f"expected grey data to binarise, got {raw.name!r}, which is binary already; try binarise=None"
        )
    if raw.support not in ("levels", "unit_interval"):
        raise ValueError(
            f"expected grey levels or values in [0, 1] to binarise, got {raw.name!r} with support "
            f"{raw.support!r}, whose values are no Bernoulli probabilities; try binarise=None or rescale "
            "the values to [0, 1]"
        )
    top = 1 if raw.levels is None else raw.levels - 1
    p = {name: x / top for name, x in raw.splits.items()}
    if binarise == "threshold":
        bits = {name: (q > 0.5).to(torch.float32) for name, q in p.items()}
    else:
        bits = {name: bernoulli(q, seeds.generator(seed, STREAMS[name])) for name, q in p.items()}
    result = raw.replace(splits=bits, support="binary", levels=None, binarisation=binarise)
    return result, p["train"] if binarise == "dynamic" else None
