"""Latents that the guide computes (a Delta): each number needs an auxiliary draw that moves it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

from ..handlers.substitute import Substitute
from ..inspection import Program
from ..latents.supports import bijection
from ..sites import is_factor, sample_sites
from .agreement import is_enumerated, shared_latents
from .contract import base_of


def check_points(program: Program) -> None:
    """Refuses point estimates beside latents that auxiliary draws are mapped to, as of AutoDelta beside AutoNormal.

    A Delta ends a change of variables: the auxiliary draw has the density of the latent. One that no such draw moves
    has no density: E_q[w] is then p(x, y) at a point y, which may be above p(x). The guide is run again with other
    auxiliary draws and the same other latents; and the numbers of both are counted, in unconstrained coordinates.

    Raises:
        ValueError: naming the latents.
    """
    with program.on(program.arguments.chunks(2)[0]) as given:
        traces = program.traces(given, None)
        points = {
            n: (own, site["fn"])
            for n, own, site in shared_latents(*traces)
            if isinstance(base_of(own["fn"]), dist.Delta)
        }
        if not points:
            return
        drawn = dict(sample_sites(traces[0]))
        known = {n for n, _, _ in shared_latents(*traces)}
        auxiliary = [
            s for n, s in drawn.items() if n not in known and not s["is_observed"] and not is_factor(s)
        ]
        fixed = {n: drawn[n]["value"] for n in known - points.keys() if not is_enumerated(drawn[n])}
        again, _ = replace(program, guide=Substitute(fixed)(program.guide)).traces(given, None)
    still = [n for n, (own, law) in points.items() if _stands(law, own["value"], again.nodes[n]["value"])]
    if still:
        raise ValueError(
            f"expected a guide with a density, got a point estimate (Delta) at {still}, which no auxiliary draw moves: "
            "E_q[w] would be p(x, z) at a point, no p(x); try a law with a width there, such as AutoNormal in place of "
            "AutoDelta"
        )
    try:
        free = [math.prod(bijection(law).inverse_shape(law.event_shape)) for _, law in points.values()]
    except (NotImplementedError, AttributeError):
        return  # no coordinates are known
    wanted = sum(_places(own) * size for (own, _), size in zip(points.values(), free, strict=True))
    got = sum(_places(s) * math.prod(s["fn"].event_shape) for s in auxiliary)
    if wanted != got:
        n = len(given[0])
        raise ValueError(
            f"expected as many auxiliary numbers as the latents {list(points)} have that they are mapped to, got "
            f"{got / n:g} for {wanted / n:g} per datum: the map has no Jacobian, and the weights estimate no p(x); try "
            "one auxiliary number for each"
        )


def _stands(law: Any, value: Tensor, again: Tensor) -> bool:
    """Whether a number of a latent, in unconstrained coordinates, is the same in both runs for all data."""
    try:
        to = bijection(law)
        value, again = to.inv(value), to.inv(again)
    except (NotImplementedError, AttributeError):
        return bool(torch.equal(value, again))
    same = value == again
    event = len(to.inverse_shape(law.event_shape))
    return bool(same.reshape(-1, *same.shape[same.dim() - event :]).all(0).any())


def _places(site: Any) -> int:
    return math.prod(f.size for f in site["cond_indep_stack"] if f.vectorized)
