"""Scales latent sites, for objectives that weigh the KL term."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Tensor


class ScaleLatents(Messenger):
    """Multiplies the scale of every latent site by `beta`.

    Put around model AND guide, Pyro's ELBOs become E[ln p(x|z)] - beta KL(q || p). Unlike
    `poutine.scale` it takes beta = 0, where a linear warm-up starts.
    """

    def __init__(self, beta: float | Tensor) -> None:
        super().__init__()
        self.beta = beta

    def _pyro_sample(self, msg: Any) -> None:
        if not msg["is_observed"] and type(msg["fn"]).__name__ != "_Subsample":
            msg["scale"] = msg["scale"] * self.beta


def scale_latents(fn: Callable[..., Any], beta: float | Tensor) -> Callable[..., Any]:
    """`fn` with its latent sites scaled by beta; `fn` itself where beta is 1."""
    # A tensor (a traced beta) is not asked for its value.
    return fn if isinstance(beta, float | int) and beta == 1.0 else ScaleLatents(beta)(fn)
