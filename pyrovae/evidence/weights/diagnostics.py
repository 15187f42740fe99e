"""Diagnostics of the log-weights of one datum: how far they can be trusted."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .khat import TailFit, fit_tails, smooth_tails

# Below this effective sample size a two-sided interval under-covers (log-normal weights with
# K = 5000: 95 % nominal covers 80 % at log-variance 7, 48 % at 16).
MIN_ESS = 200.0
ALONE = 2.0  # an effective sample size below which one weight makes up most of the sum
MIN_SAMPLES = 25  # below, there is no tail to fit
EQUAL = 0.01  # nats: weights that differ by less have no tail worth a fit (rounding under an exact guide)


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """ESS = (sum w)^2 / sum w^2 over samples (Kong 1992); `[K, N]` to `[N]`, between 1 and K.

    0 where all weights are zero.
    """
    lw = log_weights.double()
    ess = (2 * torch.logsumexp(lw, 0) - torch.logsumexp(2 * lw, 0)).exp()
    return torch.nan_to_num(ess, nan=0.0)


def khat_threshold(num_samples: int) -> float:
    """min(1 - 1/log10 S, 0.7) (Vehtari et al. 2024, https://arxiv.org/abs/1507.02646)."""
    return min(1 - 1 / math.log10(num_samples), 0.7) if num_samples > 1 else 0.0


def pareto_khat(log_weights: Tensor) -> Tensor:
    """Pareto tail index k of the weights, `[K, N]` to `[N]`: see `psis.fit_tails`.

    A diagnostic only: smoothing the weights would bias the evidence. Above `khat_threshold` the
    estimate's error cannot be trusted. A constant added to the log-weights changes nothing. NaN where
    K < 25 leaves no tail to fit; +inf where a weight vector is degenerate (all zero, or ties at the top);
    -inf where the weights are equal (within one per cent of each other): there is no tail.
    """
    if len(log_weights) < MIN_SAMPLES:
        return torch.full(log_weights.shape[1:], torch.nan, dtype=torch.float64, device="cpu")
    return _khat(log_weights, fit_tails(log_weights)).cpu()


def smoothed_log_weights(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Pareto-smoothed log-weights `[K, N]` (up to a constant a datum) and k-hat `[N]`.

    Unsmoothed where K < 25, or where there is nothing to smooth.
    """
    if len(log_weights) < MIN_SAMPLES:
        return log_weights.detach().double().cpu().clone(), pareto_khat(log_weights)
    fit = fit_tails(log_weights)
    khat = _khat(log_weights, fit)
    smooth = torch.where(torch.isfinite(khat), smooth_tails(log_weights, fit), log_weights.detach().double())
    return smooth.cpu(), khat.cpu()


def _khat(log_weights: Tensor, fit: TailFit) -> Tensor:
    lw = log_weights.detach().double()
    low, high = lw.aminmax(dim=0)
    khat = torch.where(high - low < EQUAL, -torch.inf, fit.khat)
    return torch.where(torch.isfinite(high), khat, torch.inf)
