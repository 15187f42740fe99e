"""A free-energy difference from work in both directions, and the fluctuation theorem as a test of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

MIN_OVERLAP = 0.03  # Klimovich, Shirts & Mobley (2015), https://doi.org/10.1007/s10822-015-9840-9


@dataclass(frozen=True)
class Bennett:
    """Bennett's acceptance ratio, `[N]`, nats.

    Attributes:
        log_ratio: ln(Z_1 / Z_0); NaN for a datum whose works do not overlap.
        variance: its Monte-Carlo variance; NaN there too.
        overlap: of the two distributions of work, 0 ... 1/2 for as many works in each direction: see
            `bennett_acceptance_ratio`.
    """

    log_ratio: Tensor
    variance: Tensor
    overlap: Tensor


@dataclass(frozen=True)
class CrooksFit:
    """ln p_F(W) - ln p_R(-W) = slope (W - crossing), fitted to works without histograms.

    Crooks (1999) says slope = 1 and crossing = Delta F = -ln(Z_1 / Z_0), for any speed: a slope that is off says that
    the starting states are not those of the ends, or that moves do not leave their density invariant.

    Attributes:
        slope, slope_variance: `[N]`.
        crossing, crossing_variance: where the two densities of work are equal, `[N]`, nats.
    """

    slope: Tensor
    slope_variance: Tensor
    crossing: Tensor
    crossing_variance: Tensor


def bennett_acceptance_ratio(forward: Tensor, reverse: Tensor) -> Bennett:
    """ln(Z_1 / Z_0) from works W_F of 0 -> 1 and W_R of 1 -> 0, all started in equilibrium.

    Solves sum_F f(M + W_F - D) = sum_R f(-M + W_R + D), f(x) = 1/(1 + e^x), M = ln(n_F/n_R), for D = Delta F, and
    returns -D: of all estimators of this form the one of the least variance, and the maximum likelihood one
    (Bennett 1976, https://doi.org/10.1016/0021-9991(76)90078-4; Shirts et al. 2003,
    https://doi.org/10.1103/PhysRevLett.91.140601). Consistent, without direction. The variance is Bennett's, for
    independent works.

    Where few works lie where both directions have some, neither the value nor its variance means anything: the value
    is anywhere in the gap between the two. The overlap is the off-diagonal element of the two states' overlap matrix,
    sum over all works of s (1 - s) / max(n_F, n_R), s the probability that a work is a forward one; data with less
    than 0.03 get NaN (the threshold of Klimovich, Shirts & Mobley 2015, https://doi.org/10.1007/s10822-015-9840-9).

    Args:
        forward: W_F = -ln w, `[K_F, N]`; +inf is a chain of no weight.
        reverse: W_R = -ln w of the way back, `[K_R, N]`.

    Raises:
        ValueError: for shapes that differ in N, fewer than two works a side, NaN, works that are all infinite, or
            works that overlap for no datum.

    Example:
        >>> import torch
        >>> forward, reverse = torch.randn(2, 1000, 1, dtype=torch.float64)
        >>> abs(bennett_acceptance_ratio(forward + 0.5, reverse + 0.5).log_ratio.item()) < 0.2
        True
    """
    found = _ratio(forward, reverse)
    few = ~(found.overlap >= MIN_OVERLAP)
    if bool(few.all()):
        raise ValueError(
            "expected works forward and back that overlap, got an overlap of at most "
            f"{float(found.overlap.max()):.2g} (< {MIN_OVERLAP}): their free-energy difference lies anywhere between "
            "them; try more temperatures (a slower path), or the two bounds"
        )
    value, variance = (torch.where(few, torch.nan, v) for v in (found.log_ratio, found.variance))
    return Bennett(value, variance, found.overlap)


def _ratio(forward: Tensor, reverse: Tensor) -> Bennett:
    """The solution for all data, whether works overlap or not."""
    forward, reverse = _checked(forward, reverse)
    m = math.log(len(forward) / len(reverse))
    ends = torch.cat([forward, -reverse])
    low = torch.where(torch.isfinite(ends), ends, torch.inf).amin(0)
    high = torch.where(torch.isfinite(ends), ends, -torch.inf).amax(0)
    for _ in range(100):  # the difference of the two sums rises with D
        middle = 0.5 * (low + high)
        above = _fermi(m + forward - middle).sum(0) > _fermi(-m + reverse + middle).sum(0)
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    delta = 0.5 * (low + high)
    variance = _relative(_fermi(m + forward - delta)) + _relative(_fermi(-m + reverse + delta))
    works = torch.cat([forward, -reverse])
    share = _fermi(m + works - delta)
    overlap = (share * (1 - share)).sum(0) / max(len(forward), len(reverse))
    return Bennett(-delta, variance, overlap)


def crooks_fit(forward: Tensor, reverse: Tensor, steps: int = 50) -> CrooksFit:
    """Logistic regression of the direction on the work, by Newton's method.

    ln P(forward | W) / P(reverse | W) = ln(n_F/n_R) + slope W - slope crossing, where reverse works enter as -W.
    Variances are those of the Fisher information. NaN for data whose works do not overlap, as in
    `bennett_acceptance_ratio`: directions that a work tells apart at once have no finite slope.

    Args:
        forward, reverse: as in `bennett_acceptance_ratio`; infinite works are left out.
        steps: of Newton.

    Raises:
        ValueError: as there.

    Example:
        >>> import torch
        >>> forward, reverse = torch.randn(2, 1000, 1, dtype=torch.float64)
        >>> abs(crooks_fit(forward + 0.5, reverse + 0.5).slope.item() - 1) < 0.4
        True
    """
    forward, reverse = _checked(forward, reverse)
    overlapping = torch.isfinite(bennett_acceptance_ratio(forward, reverse).log_ratio)
    start = -_ratio(forward, reverse).log_ratio
    work = torch.cat([forward, -reverse]) - start
    used = torch.isfinite(work)
    work = torch.where(used, work, 0.0)
    label = torch.zeros_like(work)
    label[: len(forward)] = 1.0
    offset = math.log(len(forward) / len(reverse))
    slope, cut = torch.ones_like(start), torch.zeros_like(start)  # ln odds = offset + slope W + cut

    def loss(slope: Tensor, cut: Tensor) -> Tensor:
        z = offset + slope * work + cut
        return (used * (torch.nn.functional.softplus(z) - label * z)).sum(0)

    def information(slope: Tensor, cut: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        p = torch.sigmoid(offset + slope * work + cut)
        v = used * p * (1 - p)
        a, b, c = (v * work.square()).sum(0), (v * work).sum(0), v.sum(0)
        return a, b, c, (a * c - b.square()).clamp(min=1e-300)

    for _ in range(steps):
        error = used * (label - torch.sigmoid(offset + slope * work + cut))
        g, h = (error * work).sum(0), error.sum(0)
        a, b, c, det = information(slope, cut)
        d_slope, d_cut = (c * g - b * h) / det, (a * h - b * g) / det
        scale = torch.ones_like(slope)
        for _ in range(20):  # the loss is convex: half the step until it falls
            worse = loss(slope + scale * d_slope, cut + scale * d_cut) > loss(slope, cut)
            if not bool(worse.any()):
                break
            scale = torch.where(worse, 0.5 * scale, scale)
        slope, cut = slope + scale * d_slope, cut + scale * d_cut
    a, b, c, det = information(slope, cut)
    shift = -cut / slope
    # How many works there are of each direction was fixed beforehand: the intercept varies by that much less
    # (Shirts et al. 2003). Then -cut / slope to first order, the inverse information being [c, -b; -b, a] / det.
    fixed = 1 / len(forward) + 1 / len(reverse)
    crossing = (((a - 2 * shift * b + shift.square() * c) / det) - fixed) / slope.square()
    found = (slope, c / det, start + shift, crossing.clamp(min=0.0))
    return CrooksFit(*(torch.where(overlapping, v, torch.nan) for v in found))


def overlap(forward: Tensor, reverse: Tensor) -> Tensor:
    """Overlap of works in both directions, `[N]`; see `bennett_acceptance_ratio`."""
    return _ratio(forward, reverse).overlap


def _fermi(x: Tensor) -> Tensor:
    return torch.sigmoid(-x)


def _relative(values: Tensor) -> Tensor:
    """Variance of ln of their mean."""
    n = len(values)
    return (values.square().mean(0) / values.mean(0).square() - 1) / n


def _checked(forward: Tensor, reverse: Tensor) -> tuple[Tensor, Tensor]:
    forward, reverse = forward.double(), reverse.double()
    shapes = tuple(forward.shape), tuple(reverse.shape)
    if forward.dim() != 2 or reverse.dim() != 2 or forward.shape[1] != reverse.shape[1]:
        raise ValueError(f"expected works [K_F, N] and [K_R, N], got shapes {shapes[0]} and {shapes[1]}")
    if min(len(forward), len(reverse)) < 2:
        raise ValueError(
            f"expected at least two works in each direction, got {len(forward)} and {len(reverse)}"
        )
    for name, work in (("forward", forward), ("reverse", reverse)):
        if bool(work.isnan().any()) or not bool(torch.isfinite(work).any(0).all()):
            raise ValueError(f"expected {name} works that are numbers, not all infinite, for each datum")
    return forward, reverse
