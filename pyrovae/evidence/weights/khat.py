"""Pareto fits to the tails of importance weights, all data at once, on any device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

MIN_TAIL = 5  # weights above the cutoff that a fit needs
LOWEST = math.log(torch.finfo(torch.float64).tiny)  # weights below exp(this) times the largest are zeros
# Live bytes of one block of (datum, candidate, tail weight) triples.
BUDGET = {"cpu": 4 * 2**20, "cuda": 2**30}


@dataclass(frozen=True)
class TailFit:
    """A generalised Pareto law fitted to the largest weights of each datum.

    Attributes:
        khat: shape k, `[N]`; +inf where fewer than five weights lie above the cutoff.
        sigma: scale, in units of the largest weight, `[N]`.
        order: samples of the largest weights, in falling order, `[M, N]`.
        length: how many of them make the tail, `[N]`.
        cutoff: ln of the largest weight that is not in the tail, over the largest weight, `[N]`.
    """

    khat: Tensor
    sigma: Tensor
    order: Tensor
    length: Tensor
    cutoff: Tensor


def fit_tails(log_weights: Tensor) -> TailFit:
    """Fits the M = min(K / 5, 3 sqrt(K)) largest weights of each datum, `[K, N]`, in float64.

    The profile posterior mean of Zhang & Stephens (2009, https://doi.org/10.1198/tech.2009.08017) with
    the prior of Vehtari et al. (2024, https://arxiv.org/abs/1507.02646), as ArviZ and R's loo have it, but for a block
    of data at once. (From 1.3 on ArviZ takes one weight less into the tail: k-hats that differ in the third digit.)
    """
    lw = log_weights.detach().double()
    num_samples, num_data = lw.shape
    size = math.ceil(min(num_samples / 5, 3 * num_samples**0.5))
    # Rows of a contiguous matrix: the largest of a strided column cost several times as much.
    top, order = lw.T.contiguous().topk(min(size + 1, num_samples), sorted=True)
    top = top - top[:, :1]
    cutoff = top[:, -1].clamp(min=LOWEST)
    above = top[:, :size] > cutoff[:, None]
    length = above.sum(1)
    khat = torch.full((num_data,), torch.inf, dtype=torch.float64, device=lw.device)
    sigma = torch.full_like(khat, torch.nan)
    for n in length.unique().tolist():
        if n < MIN_TAIL:
            continue
        for rows in _blocks((length == n).nonzero()[:, 0], n):
            tail = top[rows, :n].flip(1).exp() - cutoff[rows, None].exp()
            khat[rows], sigma[rows] = _fit(tail)
    return TailFit(khat, sigma, order.T[:size], length, cutoff)


def smooth_tails(log_weights: Tensor, fit: TailFit) -> Tensor:
    """Log-weights `[K, N]`, up to a constant per datum, with the expected order statistics of the fit as tail.

    None is larger than the largest raw weight. A datum without a fit keeps its weights.
    """
    lw = log_weights.detach().double()
    lw = lw - lw.amax(0)
    fitted = torch.isfinite(fit.khat) & (fit.sigma > 0)
    for n in fit.length[fitted].unique().tolist():
        rows = (fitted & (fit.length == n)).nonzero()[:, 0]
        k, sigma = fit.khat[rows], fit.sigma[rows]
        # Probabilities in falling order, as the weights are.
        p = (torch.arange(n, dtype=lw.dtype, device=lw.device).flip(0) + 0.5).div(n)[:, None]
        shape = torch.where(k.abs() < torch.finfo(lw.dtype).eps, torch.finfo(lw.dtype).eps, k)
        quantile = sigma * torch.expm1(-shape * torch.log1p(-p)) / shape
        smooth = (quantile + fit.cutoff[rows].exp()).log().clamp(max=0.0)
        lw[fit.order[:n, rows], rows] = smooth
    return lw


def _blocks(rows: Tensor, tail: int) -> Iterator[Tensor]:
    budget = BUDGET.get(rows.device.type, BUDGET["cpu"])
    return iter(rows.split(max(1, budget // (8 * tail * _candidates(tail)))))


def _candidates(tail: int) -> int:
    return 30 + int(tail**0.5)


def _fit(tail: Tensor) -> tuple[Tensor, Tensor]:
    """(k, sigma), `[R]`, of excesses `[R, n]` in rising order."""
    n = tail.shape[1]
    m = _candidates(n)
    steps = torch.arange(1, m + 1, dtype=tail.dtype, device=tail.device) - 0.5
    b = (1 - (m / steps).sqrt()) / (3 * tail[:, int(n / 4 + 0.5) - 1, None]) + 1 / tail[:, -1:]
    k = (-b[:, :, None] * tail[:, None, :]).log1p_().mean(2)
    profile = n * ((-b / k).log() - k - 1)
    weights = profile.softmax(1)
    weights = torch.where(weights >= 10 * torch.finfo(tail.dtype).eps, weights, 0.0)
    mean = (b * weights).sum(1) / weights.sum(1)
    k = torch.log1p(-mean[:, None] * tail).mean(1)
    # A tail of one value, many times, has no profile: the prior alone is left.
    return (n * k.nan_to_num(nan=0.0) + 5) / (n + 10), -k / mean
