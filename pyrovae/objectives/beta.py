"""The KL weight, outside of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.infer.elbo import ELBO as PyroELBO

from ..programs.handlers.scaling import scale_latents


class BetaELBO(PyroELBO):
    """E_q[ln p(x|z)] - beta KL(q || p), around any of Pyro's ELBOs (Higgins et al. 2017).

    For beta < 1 it is no bound on ln p(x); evidence is always reported at beta = 1.
    https://openreview.net/forum?id=Sy2fzU9gl

    Args:
        base: the ELBO that estimates the terms.
        beta: KL weight; may be changed between steps.
    """

    def __init__(self, base: Any, beta: float = 1.0) -> None:
        self.base = base
        self.beta = beta

    def __repr__(self) -> str:
        return f"BetaELBO({type(self.base).__name__}, beta={self.beta:g})"

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        return self.base._get_trace(model, guide, args, kwargs)

    def loss(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The negative objective, summed over the batch, in nats."""
        return self.base.loss(
            scale_latents(model, self.beta), scale_latents(guide, self.beta), *args, **kwargs
        )

    def loss_and_grads(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Loss as `loss` gives it, and gradients into the parameters."""
        return self.base.loss_and_grads(
            scale_latents(model, self.beta), scale_latents(guide, self.beta), *args, **kwargs
        )
