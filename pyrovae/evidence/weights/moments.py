"""Mean and variance of weighted draws, with errors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Moments of energies under the law that weighted draws stand for, `[n]` each.

    Attributes:
        mean: sum w E.
        variance: sum w (E - mean)^2 / (1 - sum w^2).
        mean_error, variance_error: Monte-Carlo variances of both.
    """

    mean: Tensor
    variance: Tensor
    mean_error: Tensor
    variance_error: Tensor


def weighted_moments(log_weights: Tensor, energy: Tensor) -> Moments:
    """Moments of `energy` `[K, n]` under self-normalised weights, errors by leaving out each draw (the jackknife).

    Draws (or chains) are independent: variance = (K - 1) / K sum_i (v_-i - mean v_-i)^2. An energy without weight does
    not count, be it infinite. NaN with fewer than two draws (three for the error of the variance). Efron & Stein
    (1981), https://doi.org/10.1214/aos/1176345462.
    """
    k = len(log_weights)
    share = torch.nan_to_num((log_weights - log_weights.logsumexp(0)).exp())
    energy = torch.where(share == 0, 0.0, energy)
    mean = (share * energy).sum(0)
    # Centred: squares of energies of thousands of nats would cancel.
    first, second = share * (energy - mean), share * (energy - mean).square()
    left = (1 - share).clamp(min=1e-300)  # weight that is left without each
    mean_without = (first.sum(0) - first) / left
    square = share.square()
    concentration = 1 - (square.sum(0) - square) / left.square()
    variance_without = ((second.sum(0) - second) / left - mean_without.square()) / concentration
    variance = second.sum(0) / (1 - square.sum(0))
    nothing, scale = torch.full_like(mean, torch.nan), (k - 1) ** 2 / k
    return Moments(
        mean,
        variance if k > 1 else nothing,
        scale * mean_without.var(0) if k > 1 else nothing,
        scale * variance_without.var(0) if k > 2 else nothing,
    )
