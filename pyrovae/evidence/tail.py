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
    parts = [_allowance(part.double()) for part in log_weights.split(ROWS, 1)]
    found = torch.cat(parts).cpu()
    return found.masked_fill(khat.cpu() == -torch.inf, 0.0)


def _allowance(lw: Tensor) -> Tensor:
    m = tail_size(len(lw))
    if m < 1:
        return torch.full_like(lw[0], torch.inf)
    share = (lw.topk(m + 1, 0).values - torch.logsumexp(lw, 0)).exp()
    excess = share[:m] - share[m]
    count = (excess > 0).sum(0)  # ties with the threshold are no part of the tail
    mean = excess.sum(0) / count
    x = (excess / mean).nan_to_num(0.0)
    k = torch.linspace(1 / SHAPES, 1, SHAPES, dtype=lw.dtype, device=lw.device)
    theta = torch.logspace(-2, 2.5, SCALES, dtype=lw.dtype, device=lw.device)  # k / s, in units of 1 / mean
    sums = torch.stack([torch.log1p(t * x).sum(0) for t in theta])
    best = -count.to(lw.dtype)  # the exponential law, k = 0
    likelihood = []
    for shape in k:
        ln = count * (theta.log() - shape.log()).unsqueeze(1) - (1 + 1 / shape) * sums
        likelihood.append(ln)
        best = torch.maximum(best, ln.amax(0))
    largest = torch.zeros_like(best)
    for shape, ln in zip(k, likelihood, strict=True):
        # s / (1 - k) falls with theta: the mean is that of the smallest theta that is not excluded.
        allowed = (ln >= best - TAIL_SIGMAS**2 / 2).to(lw.dtype)
        means = (shape / theta / (1 - shape)).unsqueeze(1)
        largest = torch.maximum(largest, torch.where(allowed > 0, means, 0.0).amax(0))
    found = (excess.sum(0) * (largest - 1)).clamp(min=0)
    found = torch.where(count > 0, found, 0.0)
    return found.masked_fill(torch.isnan(share[0]), torch.inf)
