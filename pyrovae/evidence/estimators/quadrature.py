"""Integrals over one or two dims, all data at once, with an error that knows what was not visited."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .panels import Panels

# [C, K, n'] at u [K, n', d] for the data at positions [n'].
LogDensities = Callable[[Tensor, Tensor], Tensor]

REACH = 60.0  # of the search for the integrand's place, in standard deviations
NODES = {1: 65, 2: 33}  # of that search, a dim
END = 36.0  # in t = asinh((u - m) / s): 1e15 standard deviations, past which a Cauchy tail has 1e-15 of its mass
FIXED = {1: (0.5, 2.0, 8.0), 2: (6.0,)}  # first edges of panels, beside the scouts' quantiles
QUANTILES = {1: 8, 2: 3}  # panels between which scouts are divided
MOST = {1: 600, 2: 1200}  # panels of a datum
SAFETY = 4.0  # on the rules' difference: of smooth integrands it is far too large already, of jumps it may be too small
FINER = 1e-2  # of the tolerance, while panels are few


@dataclass(frozen=True)
class Integral:
    """ln of an integral and what may be wrong with it, `[n]`, nats.

    Attributes:
        value: ln of the integral.
        error: of the rule, of tails beyond the grid, of the prior's mass that no node has met, and rounding; their sum.
        rounding: the part of it that no node would mend.
        prior: ln of the prior's integral over the same panels: 0, if it is a density and all of it was visited. 0 where
            no prior was given.
        nodes: evaluated for a datum.
    """

    value: Tensor
    error: Tensor
    rounding: Tensor
    prior: Tensor
    nodes: int


def integrate(
    log_densities: LogDensities,
    mean: Tensor,
    covariance: Tensor,
    tolerance: float,
    scouts: Tensor | None = None,
    *,
    eps: float = torch.finfo(torch.float64).eps,
    likelihood: bool = True,
) -> Integral:
    """ln of the integral over R^d of exp of the first density, d = 1 or 2, and the prior's for its error.

    With u = m + L sinh(t), the space of t is cut into panels, each with the 15-point Kronrod rule in every dim and the
    7-point Gauss rule inside of it, whose difference is its error; the worst panels are halved until the sum of errors
    is within the tolerance (Piessens et al. 1983, https://doi.org/10.1007/978-3-642-61786-7; van Dooren & de Ridder
    1976 in several dims, https://doi.org/10.1016/0771-050X(76)90005-X). The sinh turns algebraic tails into
    exponential ones (Takahasi & Mori 1974, https://doi.org/10.2977/prims/1195192451). m and L L^T are the integrand's
    own moments (Naylor & Smith 1982, https://doi.org/10.2307/2347995); the first edges are quantiles of the scouts.

    What no node has met is counted too. The prior, integrated over the same panels, must give 1: what is missing times
    the largest likelihood met is an error, and panels that hold more scouts of the prior than mass are halved. A panel
    at the end of the grid, or at a place where the density is no number, counts as error whole.

    Args:
        log_densities: at u `[K, n', d]` and positions of the data `[n']`: `[1, K, n']`, or `[2, K, n']` with the
            prior's in second place.
        mean: where to look, `[n, d]`, float64.
        covariance: how far, `[n, d, d]`.
        tolerance: nats, rounding not counted.
        scouts: draws `[2, S, n, d]` of guide and prior.
        eps: of the numbers that the densities are computed in.
        likelihood: whether the first density is the prior times a likelihood; else the prior's missing mass is an
            error as it is.
    """
    dim = mean.shape[-1]
    mean, factor = _place(log_densities, mean, covariance)
    inverse = torch.linalg.inv(factor)

    def to_t(u: Tensor) -> Tensor:
        return (inverse @ (u - mean).unsqueeze(-1)).squeeze(-1).asinh().clamp(-END, END)

    log_scale = torch.diagonal(factor, dim1=-2, dim2=-1).log().sum(-1)

    def at(t: Tensor, rows: Tensor) -> Tensor:
        u = mean[rows] + (factor[rows] @ t.sinh().unsqueeze(-1)).squeeze(-1)
        return log_densities(u, rows).double() + (t.cosh().log().sum(-1) + log_scale[rows])

    places = None if scouts is None else to_t(scouts)
    panels = Panels.over(at, _edges(places, mean.shape, mean.device), END, eps)
    while True:
        total, rule, tail = panels.totals()
        rule = SAFETY * rule
        peak, prior_size, likelihood_size, largest = panels.peak()
        rounding = eps * (1 + prior_size + likelihood_size)
        missing, weight = torch.zeros_like(rule), torch.zeros_like(rule)
        if panels.num_densities == 2:
            missing = (total[1].expm1().abs() - 8 * eps * (1 + prior_size)).clamp(min=0.0)
            weight = (largest - total[0]).exp() if likelihood else torch.ones_like(rule)
        error = rule + tail + missing * weight
        error = torch.where(
            peak == -torch.inf, missing, error
        )  # zero everywhere: exp(ln p) is as small as missing
        # Smooth integrands are had to far better than asked for at little cost.
        aim = tolerance * (FINER if panels.num_panels < MOST[dim] // 4 else 1.0)
        open_ = ~(error - rounding <= aim)
        if panels.num_panels >= MOST[dim] or not bool(open_.any()):
            prior = total[1] if panels.num_densities == 2 else torch.zeros_like(rule)
            return Integral(total[0], error + rounding, rounding, prior, panels.num_nodes)
        panels.halve(at, open_, weight, missing, None if places is None else places[1])


def _edges(places: Tensor | None, shape: torch.Size, device: torch.device) -> Tensor:
    """First edges of panels, `[B, n, d]`, rising from -END to END."""
    n, dim = shape
    fixed = torch.tensor([-END, END, *(s * v for v in FIXED[dim] for s in (-1, 1))], dtype=torch.float64)
    edges = [fixed.to(device)[:, None, None].expand(-1, n, dim)]
    if places is not None:
        share = torch.linspace(0, 1, QUANTILES[dim] + 2, dtype=torch.float64, device=device)[1:-1]
        edges += [part.nan_to_num(0.0).quantile(share, dim=0) for part in places]
    return torch.cat(edges).sort(0).values


def _place(log_densities: LogDensities, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and Cholesky factor of the integrand's own moments, from coarse sums."""
    factor = torch.linalg.cholesky(covariance)
    rows = torch.arange(len(mean), device=mean.device)
    for step in range(8):
        u, log_terms = _terms(log_densities, mean, factor, rows)
        weights = torch.nan_to_num(log_terms.softmax(0))
        centre = torch.einsum("kn,knd->nd", weights, u)
        spread = u - centre
        moments = torch.einsum("kn,knd,kne->nde", weights, spread, spread)
        # A peak between two nodes has no spread that they could see: shrink by steps.
        moments = moments + 0.01 * factor @ factor.mT * (1e-3 if step > 4 else 1.0)
        found = torch.isfinite(moments).flatten(1).all(1) & (weights.sum(0) > 0.5)
        root, failed = torch.linalg.cholesky_ex(moments)
        found &= failed == 0
        mean = torch.where(found[:, None], centre, mean)
        factor = torch.where(found[:, None, None], root, factor)
    return mean, factor


def _terms(log_densities: LogDensities, mean: Tensor, factor: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes u `[K, n, d]` of the trapezoidal rule in t, and ln of its terms, `[K, n]`."""
    dim = mean.shape[-1]
    end = math.asinh(REACH)
    t = torch.linspace(-end, end, NODES[dim], dtype=mean.dtype, device=mean.device)
    grid = torch.cartesian_prod(*[t] * dim).reshape(-1, 1, dim)
    u = mean + (factor @ grid.sinh().unsqueeze(-1)).squeeze(-1)
    log_terms = log_densities(u, rows)[0].double() + grid.cosh().log().sum(-1)
    return u, torch.where(log_terms < torch.inf, log_terms, -torch.inf)
