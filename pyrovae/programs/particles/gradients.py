"""Draws of a guide, held fixed or with their gradient weighed; their scores, weighed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ..sites import sample_sites


class PathWeights:
    """Factors `[K, N]` on the gradient that reaches the draws; known once the model has run."""

    def __init__(self) -> None:
        self.value: Tensor = torch.ones(1, 1, device="cpu")

    def on(self, draw: Tensor, event_dim: int, datum_dim: int, depth: int, k: int | None) -> Tensor:
        """The draw under a new name, so that draws that were made from it are not weighed with it."""
        if not draw.requires_grad:
            return draw
        right = (1,) * (-datum_dim - 1 + event_dim)

        def weigh(grad: Tensor) -> Tensor:
            if k is not None:
                return grad * self.value[k].reshape(-1, *right)
            particles, data = self.value.shape
            return grad * self.value.reshape(particles, *(1,) * (depth + datum_dim), data, *right)

        alias = draw.view_as(draw)
        alias.register_hook(weigh)
        return alias


def with_draws(trace: Any, change: Callable[[Tensor, int], Tensor]) -> Any:
    """A copy of a guide trace with `change(draw, event_dim)` in place of its draws."""
    copy = trace.copy()
    for name, site in sample_sites(trace):
        if not site["is_observed"]:
            copy.nodes[name] = {**site, "value": change(site["value"], site["fn"].event_dim)}
    return copy


def rescored(guide: Any, trace: Any, args: Any, kwargs: Any) -> Any:
    """The guide at its own draws, held fixed: parameters act on the density only, not through draws.

    With one site its distribution depends on no draw, and stays; with several the guide runs again.
    """
    detached = with_draws(trace, lambda v, _: v.detach())
    if len(list(sample_sites(trace))) == 1:
        return detached
    return poutine.trace(poutine.replay(guide, trace=detached)).get_trace(*args, **kwargs)


def weighted(log_probs: dict[str, Tensor], weights: dict[str, Any]) -> Any:
    """Sum over sites; a weight of 1 costs nothing."""
    unit = {n: isinstance(w, float) and w == 1.0 for n, w in weights.items()}
    return sum(
        (v if unit[n] else weights[n] * v for n, v in log_probs.items()), torch.zeros((), device="cpu")
    )


def site_scale(site: Any, datum_dim: int) -> Any:
    """A site's scale as a number, a scalar tensor or `[N]`."""
    scale = site["scale"]
    if not isinstance(scale, Tensor):
        return float(scale)
    if scale.numel() == 1:
        return scale.reshape(())
    if scale.dim() < -datum_dim or scale.numel() != scale.shape[datum_dim]:
        raise ValueError(f"expected scales per datum at most, got {tuple(scale.shape)} at {site['name']!r}")
    return scale.reshape(-1)
