"""How much of the mean weight may lie beyond the largest weights that were drawn."""

from __future__ import annotations

import torch
from torch import Tensor

TAIL_SIGMAS = 3.5  # a tail is excluded where its log-likelihood is this^2 / 2 below the best
ROWS = 1024  # data at once
SHAPES = 40  # of generalised Pareto tails, k in (0, 1]
SCALES = 60


def tail_size(num_samples: int) -> int:
    """Largest weights that a tail is fitted to, min(K / 5, 3 sqrt K) (Vehtari et al. 2024)."""
    return int(min(0.2 * num_samples, 3 * num_samples**0.5))


def tail_allowance(log_weights: Tensor, khat: Tensor) -> Tensor:
    """How far E w may lie above the mean of the weights, relative to it, `[K, N]` to `[N]`.

    The largest weights above a threshold u are fitted by generalised Pareto laws of shape k and scale s, whose
    mean excess over u is s / (1 - k) (Pickands 1975, https://doi.org/10.1214/aos/1176343003). Of all (k, s) that
    the weights do not exclude (log-likelihood within 3.5^2 / 2 of the best) the largest mean is taken: a run whose
    largest weights were small by chance is given room for those it did not draw. Infinite where the weights do
    not exclude an infinite mean, k = 1: they say nothing of how large p(x) is. 0 where all weights are equal.

    Args:
        log_weights: nats.
        khat: their Pareto index, `[N]`; -inf marks equal weights.
    """
    parts = [_fit(part.double())[0] for part in log_weights.split(ROWS, 1)]
    return torch.cat(parts).cpu().masked_fill(khat.cpu() == -torch.inf, 0.0)


def least_tail_index(log_weights: Tensor) -> Tensor:
    """Tail index k less its standard error, `[K, N]` to `[N]`: the least that the largest weights do not exclude.

    Never below 1/40, however light the tail is.
    """
    return torch.cat([_fit(part.double())[1] for part in log_weights.split(ROWS, 1)]).cpu()


def _fit(lw: Tensor) -> tuple[Tensor, Tensor]:
    """The allowance, and the least k within one standard error, `[n]`."""
    m = tail_size(len(lw))
    if m < 1:
        return torch.full_like(lw[0], torch.inf), torch.full_like(lw[0], 1 / SHAPES)
    share = (lw.topk(m + 1, 0).values - torch.logsumexp(lw, 0)).exp()
    excess = share[:m] - share[m]
    count = (excess > 0).sum(0)  # ties with the threshold are no part of the tail
    x = (excess / (excess.sum(0) / count)).nan_to_num(0.0)
    shapes = torch.linspace(1 / SHAPES, 1, SHAPES, dtype=lw.dtype, device=lw.device)
    theta = torch.logspace(-2, 2.5, SCALES, dtype=lw.dtype, device=lw.device)  # k / s, in units of 1 / mean
    sums = torch.stack([torch.log1p(t * x).sum(0) for t in theta])
    likelihood = [count * (theta.log() - k.log()).unsqueeze(1) - (1 + 1 / k) * sums for k in shapes]
    profile = torch.stack([ln.amax(0) for ln in likelihood])
    best = torch.maximum(profile.amax(0), -count.to(lw.dtype))  # or the exponential law, k = 0
    largest = torch.zeros_like(best)
    for k, ln in zip(shapes, likelihood, strict=True):
        means = (k / theta / (1 - k)).unsqueeze(1).expand_as(ln)
        largest = torch.maximum(largest, means.where(ln >= best - TAIL_SIGMAS**2 / 2, 0.0).amax(0))
    allowance = (excess.sum(0) * (largest - 1)).clamp(min=0).where(count > 0, 0.0)
    near = profile >= best - 0.5
    least = shapes.unsqueeze(1).expand_as(near).where(near, torch.inf).amin(0)
    return allowance.masked_fill(share[0].isnan(), torch.inf), least.where(least.isfinite(), 1 / SHAPES)
