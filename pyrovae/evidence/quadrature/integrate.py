"""Integrals over one or two dims, all data at once, with an error that knows what was not visited."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .panels import Panels
from .peaks import Peaks, climb, has_gradients
from .tails import FAR, LogDensities, beyond

REACH = 60.0  # of the search for the integrand's place, in standard deviations
NODES = {1: 65, 2: 33}  # of that search, a dim
END = 36.0  # in t = asinh((u - m) / s): 1e15 standard deviations, past which a Cauchy tail has 1e-15 of its mass
FIXED = {1: (0.5, 2.0, 8.0), 2: (2.5, 8.0)}  # first edges of panels, beside the scouts' quantiles
QUANTILES = {1: 8, 2: 0}  # edges between which scouts are divided
ROUGH = 8.0  # on how much it typically is off a line
AROUND = {1: (0.0, 3.0, 8.0), 2: (9.0,)}  # edges around a peak, in its own standard deviations
MAXIMA = 8  # of the coarse grid, from which the search for peaks starts
CLIMBERS = (8, 16)  # scouts of guide and prior from which it starts too
MOST = {1: 600, 2: 1200}  # panels of a datum
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
        climbed: whether peaks were searched for by gradients.
        beyond: the part of the error that lies beyond all nodes, or beyond the last number; inf where the integrand
            falls too slowly there to have an integral.
    """

    value: Tensor
    error: Tensor
    rounding: Tensor
    prior: Tensor
    nodes: int
    climbed: bool = False
    beyond: Tensor | None = None


def integrate(
    log_densities: LogDensities,
    mean: Tensor,
    covariance: Tensor,
    tolerance: float,
    scouts: Tensor | None = None,
    *,
    eps: float = torch.finfo(torch.float64).eps,
    likelihood: bool = True,
    gradients: bool = True,
    mapped: Tensor | None = None,
) -> Integral:
    """ln of the integral over R^d of exp of the first density, d = 1 or 2, and the prior's for its error.

    With u = m + L sinh(t), the space of t is cut into panels, each with the 15-point Kronrod rule in every dim and the
    7-point Gauss rule inside of it, whose difference is its error; the worst panels are halved until the sum of errors
    is within the tolerance (Piessens et al. 1983, https://doi.org/10.1007/978-3-642-61786-7; van Dooren & de Ridder
    1976 in several dims, https://doi.org/10.1016/0771-050X(76)90005-X). The sinh turns algebraic tails into
    exponential ones (Takahasi & Mori 1974, https://doi.org/10.2977/prims/1195192451). m and L L^T are the integrand's
    own moments (Naylor & Smith 1982, https://doi.org/10.2307/2347995); the first edges are quantiles of the scouts.
    Every peak that Newton's steps from scouts and from the maxima of a coarse grid lead to has panels of its own width:
    one of 1e-5 of the prior's would else be met by luck.

    What no node has met is counted too. The prior, integrated over the same panels, must give 1: what is missing times
    the largest likelihood met is an error, and panels that hold more scouts of the prior than mass are halved. A panel
    at the end of the grid, or at a place where the density is no number, counts as error whole. So does what the
    integrand holds beyond the grid and beyond all numbers (`tails`); where it is too much for the grid, and not beyond
    all numbers, a line gets a longer one.

    Args:
        log_densities: at u `[K, n', d]` and positions of the data `[n']`: `[1, K, n']`, or `[2, K, n']` with the
            prior's in second place.
        mean: where to look, `[n, d]`, float64.
        covariance: how far, `[n, d, d]`.
        tolerance: nats, rounding not counted.
        scouts: draws `[2, S, n, d]` of guide and prior.
        eps: of the numbers that the densities are computed in.
        gradients: whether to search for peaks, if the densities have gradients.
        likelihood: whether the first density is the prior times a likelihood; else the prior's missing mass is an
            error as it is.
        mapped: whether a dim's latent is another number than u, onto which it is mapped, `[d]`; default: none is.
    """
    dim = mean.shape[-1]
    peaks = _peaks(log_densities, mean, covariance, scouts) if gradients else None
    mean, covariance = _start(peaks, mean, covariance)
    mean, factor = _place(log_densities, mean, covariance)
    mapped = torch.zeros(dim, dtype=torch.bool, device="cpu") if mapped is None else mapped

    def over(end: float) -> tuple[Integral, Tensor]:
        given = (log_densities, mean, factor, peaks, tolerance, scouts, end)
        return _over(*given, eps=eps, likelihood=likelihood, mapped=mapped)

    found, outside = over(END)
    assert found.beyond is not None
    short = (found.beyond > 0.1 * tolerance) & (outside <= 0.1 * tolerance)
    if dim > 1 or eps > 1e-10 or not bool(short.any()):
        return found
    further = float((FAR[True] * math.log(10) - factor[short].abs().log().clamp(min=0.0)).amin())
    more, _ = over(max(END, further))

    def chosen(name: str) -> Tensor:
        return torch.where(short, getattr(more, name), getattr(found, name))

    return replace(
        found,
        value=chosen("value"),
        error=chosen("error"),
        rounding=chosen("rounding"),
        prior=chosen("prior"),
        beyond=chosen("beyond"),
        nodes=found.nodes + more.nodes,
    )


def _over(
    log_densities: LogDensities,
    mean: Tensor,
    factor: Tensor,
    peaks: Peaks | None,
    tolerance: float,
    scouts: Tensor | None,
    end: float,
    *,
    eps: float,
    likelihood: bool,
    mapped: Tensor,
) -> tuple[Integral, Tensor]:
    """The integral over |t| < end, and the share beyond all numbers `[n]`."""
    dim = mean.shape[-1]
    inverse = torch.linalg.inv(factor)

    def to_t(u: Tensor) -> Tensor:
        return (inverse @ (u - mean).unsqueeze(-1)).squeeze(-1).asinh().clamp(-end, end)

    log_scale = torch.diagonal(factor, dim1=-2, dim2=-1).log().sum(-1)

    def at(t: Tensor, rows: Tensor) -> Tensor:
        u = mean[rows] + (factor[rows] @ t.sinh().unsqueeze(-1)).squeeze(-1)
        return log_densities(u, rows).double() + (t.cosh().log().sum(-1) + log_scale[rows])

    places = None if scouts is None else to_t(scouts)
    edges = _edges(places, mean.shape, mean.device, end)
    if peaks is not None and len(peaks.place):
        edges = torch.cat([edges, _around(peaks, mean, inverse, end)]).sort(0).values
    panels = Panels.over(at, edges, end, eps)
    while True:
        total, rule, tail = panels.totals()
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
            top = panels.highest()
            place = mean + (factor @ top.sinh().unsqueeze(-1)).squeeze(-1)
            rounding = rounding + _roughness(log_densities, place, _steps(factor, top, place, scouts), eps)
            scale = factor.square().sum(-1).sqrt()
            past, outside = beyond(
                log_densities,
                place,
                scale,
                scale * math.sinh(end) / 2,
                total[0] if dim == 1 else None,
                mapped,
                eps=eps,
            )
            nodes, climbed = panels.num_nodes, peaks is not None
            return Integral(total[0], error + past + rounding, rounding, prior, nodes, climbed, past), outside
        panels.halve(at, open_, weight, missing, None if places is None else places[1])


def _steps(factor: Tensor, t: Tensor, place: Tensor, scouts: Tensor | None) -> Tensor:
    """Size of numbers around the peak, `[n, d]`: of steps in t, or of u and where scouts lie, whichever is less.

    A long tail makes units of t far wider than anything that happens at the peak.
    """
    of_t = (factor.abs() @ (t.cosh() * t.abs().clamp(min=1.0)).unsqueeze(-1)).squeeze(-1)
    if scouts is None:
        return of_t
    near = (scouts.flatten(0, 1) - place).abs().nan_to_num(0.0).quantile(0.5, dim=0)
    return torch.minimum(of_t, place.abs() + near)


def _roughness(log_densities: LogDensities, place: Tensor, steps: Tensor, eps: float) -> Tensor:
    """Rounding at the peak `[n, d]`, `[n]`, nats: how far the density is from a line over steps of a few numbers.

    eps times the size of densities does not know what a law loses on its way (`GaussianHMM` at small noise). The
    median of second differences: a peak may stand at a jump, which is in two of them.
    """
    rows = torch.arange(len(place), device=place.device)
    k = torch.arange(-8.0, 9.0, dtype=torch.float64, device=place.device)[:, None, None]
    values = log_densities(place + k * 4 * eps * steps, rows)[0].double()
    bent = (values[2:] - 2 * values[1:-1] + values[:-2]).abs()
    bent = torch.where(bent < torch.inf, bent, torch.nan)
    return ROUGH * bent.nanmedian(0).values.nan_to_num(0.0)


def _peaks(
    log_densities: LogDensities, mean: Tensor, covariance: Tensor, scouts: Tensor | None
) -> Peaks | None:
    """Starts: the mean, scouts, and maxima of a grid over where scouts of both kinds lie."""
    rows = torch.arange(len(mean), device=mean.device)

    def log_density(u: Tensor) -> Tensor:
        return log_densities(u, rows)[0].double()

    starts = [mean.unsqueeze(0)]
    if scouts is not None:
        starts += [part[:most] for part, most in zip(scouts, CLIMBERS, strict=True)]
        both = scouts.flatten(0, 1).nan_to_num(0.0, posinf=0.0, neginf=0.0)
        covariance = covariance + torch.diag_embed((both - mean).square().mean(0))
    if not has_gradients(log_density, torch.cat(starts)):
        return None
    u, log_terms = _terms(log_densities, mean, torch.linalg.cholesky(covariance), rows)
    side = NODES[mean.shape[-1]]
    grid = log_terms.mT.unflatten(-1, (side,) * mean.shape[-1]).unsqueeze(1).nan_to_num(neginf=-1e300)
    pool = torch.nn.functional.max_pool1d if grid.dim() == 3 else torch.nn.functional.max_pool2d
    highest = (pool(grid, 3, 1, 1) <= grid).flatten(1).mT
    best = torch.where(highest, log_terms, -torch.inf).topk(MAXIMA, 0).indices
    starts.append(u.gather(0, best.unsqueeze(-1).expand(-1, -1, u.shape[-1])))
    return climb(log_density, torch.cat(starts))


def _start(peaks: Peaks | None, mean: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """The largest peak's own moments, where there is one."""
    if peaks is None or not len(peaks.place):
        return mean, covariance
    found = peaks.found[0] & (torch.linalg.cholesky_ex(peaks.covariance[0]).info == 0)
    return (
        torch.where(found[:, None], peaks.place[0], mean),
        torch.where(found[:, None, None], peaks.covariance[0], covariance),
    )


def _around(peaks: Peaks, mean: Tensor, inverse: Tensor, end: float) -> Tensor:
    """Edges around every peak, in t, `[B, n, d]`; where there is none, at the end of the grid."""
    place = (inverse @ (peaks.place - mean).unsqueeze(-1)).squeeze(-1)
    width = torch.diagonal(inverse @ peaks.covariance @ inverse.mT, dim1=-2, dim2=-1).clamp(min=0.0).sqrt()
    steps = sorted({s * v for v in AROUND[mean.shape[-1]] for s in (-1, 1)})
    edges = torch.stack([(place + v * width).asinh().clamp(-end, end) for v in steps])
    return torch.where(peaks.found.unsqueeze(-1), edges, end).flatten(0, 1)


def _edges(places: Tensor | None, shape: torch.Size, device: torch.device, end: float) -> Tensor:
    """First edges of panels, `[B, n, d]`, rising from -end to end."""
    n, dim = shape
    fixed = torch.tensor(
        [-end, end, *(s * v for v in FIXED[dim] for s in (-1, 1))], dtype=torch.float64, device="cpu"
    )
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
