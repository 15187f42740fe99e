"""Integrals over one or two dims, all data at once, with their numerical error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Reach of the rule in standard deviations: far enough for the exponential tails that supports
# like (0, inf) have once their logarithm is taken.
REACH = 60.0
FIRST, LAST = {1: 65, 2: 33}, {1: 8193, 2: 513}


@dataclass(frozen=True)
class Integral:
    """ln of an integral, `[n]`, and its error in nats: the difference to half as many nodes."""

    value: Tensor
    error: Tensor
    nodes: int


def integrate(
    log_density: Callable[[Tensor], Tensor], mean: Tensor, covariance: Tensor, tolerance: float
) -> Integral:
    """ln of the integral of exp(log_density(u)) over R^d, d = 1 or 2.

    The trapezoidal rule in t with u = mean + L sinh(t), L L^T = covariance: an analytic integrand that
    vanishes at both ends is integrated faster than by any power of the step (Trefethen & Weideman
    2014, https://doi.org/10.1137/130932132), and the sinh reaches into tails (Takahasi & Mori 1974,
    https://doi.org/10.2977/prims/1195192451). Centre and scale are adapted to the integrand's own
    moments first (Naylor & Smith 1982, https://doi.org/10.2307/2347995); the nodes are doubled until
    the value settles.

    Args:
        log_density: `[K, n, d]` to `[K, n]`.
        mean: where to look, `[n, d]`, float64.
        covariance: how far, `[n, d, d]`.
        tolerance: nats.
    """
    dim = mean.shape[-1]
    factor = torch.linalg.cholesky(covariance)
    for _ in range(8):
        u, log_terms = _terms(log_density, mean, factor, FIRST[dim])
        weights = torch.nan_to_num(log_terms.softmax(0))
        centre = torch.einsum("kn,knd->nd", weights, u)
        spread = u - centre
        moments = torch.einsum("kn,knd,kne->nde", weights, spread, spread)
        # A peak between two nodes has no spread that they could see: shrink by steps.
        moments = moments + 0.01 * factor @ factor.mT * (1e-3 if _ > 4 else 1.0)
        found = torch.isfinite(moments).flatten(1).all(1) & (weights.sum(0) > 0.5)
        mean = torch.where(found[:, None], centre, mean)
        factor = torch.where(found[:, None, None], torch.linalg.cholesky_ex(moments)[0], factor)
    nodes, before = FIRST[dim], None
    while True:
        value = _terms(log_density, mean, factor, nodes)[1].logsumexp(0)
        if before is not None:
            error = (value - before).abs()
            error[value == before] = 0.0  # -inf twice
            if nodes >= LAST[dim] or bool((error <= tolerance).all()):
                return Integral(value, error, nodes)
        nodes, before = 2 * nodes - 1, value


def _terms(
    log_density: Callable[[Tensor], Tensor], mean: Tensor, factor: Tensor, nodes: int
) -> tuple[Tensor, Tensor]:
    """Nodes u `[K, n, d]` and ln of the terms whose sum is the integral, `[K, n]`; K = nodes^d."""
    dim = mean.shape[-1]
    end = math.asinh(REACH)
    t = torch.linspace(-end, end, nodes, dtype=mean.dtype, device=mean.device)
    grid = torch.cartesian_prod(*[t] * dim).reshape(-1, 1, dim)
    u = mean + (factor @ grid.sinh().unsqueeze(-1)).squeeze(-1)
    log_scale = torch.diagonal(factor, dim1=-2, dim2=-1).log().sum(-1)
    # ln du/dt, and the weights of the rule's ends (one half), which vanish where it is any good.
    log_du = grid.cosh().log().sum(-1) + log_scale + dim * math.log(2 * end / (nodes - 1))
    return u, torch.nan_to_num(log_density(u).double(), nan=-torch.inf) + log_du
