"""Log-weights of draws from guide and prior together, by the balance heuristic."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from ..checks.support import in_support
from ..handlers.substitute import Substitute
from ..inspection import Program
from ..latents.supports import base_of
from ..sites import is_factor, reduce_to, sample_sites
from .from_prior import drawn_latents, log_density, plated, scored, split_joint


def defensive_weights(
    program: Program, indices: Tensor, num_guide: int, num_prior: int, share: float
) -> Tensor:
    """ln w of `num_guide` draws of the guide, then `num_prior` of the prior, `[K, n]`, float64, nats.

    All are weighed alike, by the density of the mixture that all blocks together are drawn from (Veach & Guibas 1995,
    https://doi.org/10.1145/218380.218498; Hesterberg 1995, https://doi.org/10.2307/1269620; Owen & Zhou 2000,
    https://doi.org/10.1080/01621459.2000.10473909):

        w = p(x, z) / ((1 - b) q(z|x) + b p(z)),  b = share.

    Where the share b of all draws is the prior's, E of the mean weight is p(x), and w <= p(x|z) / b, whatever the
    guide leaves out. Discrete latents that are enumerated in the model are summed out of p(x, z) and of p(z).

    Raises:
        ValueError: a guide whose density of z is not that of its sites: auxiliary sites, a Delta, enumeration.
    """
    parts = []
    for from_prior, number in ((False, num_guide), (True, num_prior)):
        runs = [number] if program.vectorised and number else [None] * number
        parts += [_terms(program, indices, k, from_prior) for k in runs]
    joint, prior, guide = (torch.cat(group) for group in zip(*parts, strict=True))
    return joint - torch.logaddexp(math.log1p(-share) + guide, math.log(share) + prior)


def _terms(
    program: Program, indices: Tensor, num_samples: int | None, from_prior: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """(ln p(x, z), ln p(z), ln q(z|x)), `[K, n]`, float64, of fresh draws."""
    model, guide = (plated(program, f, num_samples) for f in (program.model, program.guide))
    values = {}
    if from_prior:
        # Arguments of its own: a model that scales x in place would scale it twice.
        with program.on(indices) as given:
            values = drawn_latents(poutine.trace(model).get_trace(*given))
    with program.on(indices) as given:
        q = poutine.trace(Substitute(values)(guide)).get_trace(*given)
        if not from_prior:
            values = drawn_latents(q)
        _check_guide(q)
        p = scored(program, model, values, given)
    joint, prior = split_joint(program, p, num_samples)
    guide_terms = (
        log_density(program, q, num_samples).expand_as(joint)
        if any(sample_sites(q))
        else torch.zeros_like(joint)
    )
    guide_terms = guide_terms.masked_fill(_outside(q, program, joint), -math.inf)
    n = len(indices)
    return joint[:, :n], prior[:, :n], guide_terms[:, :n]


def _check_guide(trace: Any) -> None:
    bad = [
        name
        for name, site in sample_sites(trace)
        if site["infer"].get("is_auxiliary")
        or site["infer"].get("enumerate") == "parallel"
        or isinstance(base_of(site["fn"]), dist.Delta)
    ]
    if bad:
        raise ValueError(
            f"expected a guide with a density of the latents for a defensive share, got {bad}, auxiliary, a Delta or "
            "enumerated: the density of a draw of the prior under this guide is not known; try pv.IS without defensive="
        )


def _outside(trace: Any, program: Program, like: Tensor) -> Tensor:
    """Mask of draws outside of the guide's support, `[K, n]`; densities may be any number there."""
    count = torch.zeros_like(like)
    for _, site in sample_sites(trace):
        if is_factor(site):
            continue
        try:
            inside = in_support(site["fn"], site["value"])
        except (NotImplementedError, AttributeError):  # no support is declared
            continue
        datum = next(f.dim for f in site["cond_indep_stack"] if f.name == program.plate)
        outside = (~inside).expand(site["fn"].batch_shape).double()
        count = count + reduce_to(
            outside, (-1 - program.max_plate_nesting, datum), (like.shape[0], like.shape[1])
        )
    return count > 0
