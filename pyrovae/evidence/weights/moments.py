"""Mean and variance of weighted draws, with errors."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .delete_one import log_rest


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


def entropy_of_weights(log_weights: Tensor, energy: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """S = <E> / T + ln Z of p_T = exp(-E / T) / Z, and its Monte-Carlo variance, `[n]` each, in nats.

    From weights exp(-E / T) / q of draws of q, `[K, n]`; the variance by leaving out each draw, of both terms together.
    NaN with fewer than two draws.
    """
    k = len(log_weights)
    lw = log_weights.double()
    total = lw.logsumexp(0)
    share = torch.nan_to_num((lw - total).exp())
    energy = torch.where(share == 0, 0.0, energy)
    mean = (share * energy).sum(0)
    first = share * (energy - mean)
    rest = log_rest(lw)  # ln of the weight that is left without each
    without = (first.sum(0) - first) / rest.exp().clamp(min=1e-300) / temperature + rest
    variance = (k - 1) ** 2 / k * without.var(0) if k > 1 else torch.full_like(mean, torch.nan)
    return mean / temperature + total - math.log(k), variance
