"""Continuous latents beside discrete ones that are summed out in the model."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pyro import poutine
from torch import Tensor

from ..inspection import PARTICLES
from ..sites import collect, sample_sites


def summed_out(model_trace: Any, plate: str) -> tuple[Tensor, Tensor]:
    """ln p(z) and ln p(x | z), `[K, n]`, float64: ln sum_c p(c, z), and what ln sum_c p(x, c, z) adds to it.

    Args:
        model_trace: of the model alone, its classes c enumerated, in the particle plate.
        plate: the data plate.
    """
    nothing = poutine.trace(lambda: None).get_trace()
    latents = model_trace.copy()
    for name, site in list(sample_sites(model_trace)):
        if site["is_observed"]:
            latents.remove_node(name)
    joint, prior = (
        collect(nothing, part, plate=plate, particles=PARTICLES).log_weights()
        for part in (model_trace, latents)
    )
    return prior, joint - prior


def refuse_other_supports(
    model_trace: Any, names: Collection[str], summed: Collection[str], depth: int
) -> None:
    """Refuses latents whose support, or mask, is another for each value of what is summed out.

    There is no one map from the real numbers then, and no one density of u.

    Args:
        model_trace: of the model alone, its classes enumerated.
        names: the continuous latents.
        summed: the classes.
        depth: number of dims of plates and particles; enumerated ones are further left.

    Raises:
        ValueError: naming them.
    """
    found = []
    for name in names:
        site = model_trace.nodes[name]
        support = site["fn"].support
        while hasattr(support, "base_constraint"):
            support = support.base_constraint
        ends = [getattr(support, end, None) for end in ("lower_bound", "upper_bound")]
        wide = any(isinstance(v, Tensor) and v.dim() > depth + site["fn"].event_dim for v in ends)
        if wide or (isinstance(site["mask"], Tensor) and site["mask"].dim() > depth):
            found.append(name)
    if found:
        raise ValueError(
            f"expected latents whose support and mask are the same for all values of {sorted(summed)}, summed out, "
            f"got others for each at {found}: no map from the real numbers is theirs; try pv.IS"
        )
