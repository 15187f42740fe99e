"""What the log-weights of one datum say about their own reliability."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Below this effective sample size a two-sided interval under-covers (log-normal weights with
# K = 5000: 95 % nominal covers 80 % at log-variance 7, 48 % at 16).
MIN_ESS = 200.0


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
    """Pareto tail index k of the weights, by ArviZ's PSIS; `[K, N]` to `[N]`.

    A diagnostic only: smoothing the weights would bias the evidence. Above `khat_threshold` the
    estimate's error cannot be trusted. NaN where K < 25 leaves no tail to fit; +inf where a
    weight vector is degenerate (all zero).
    """
    num_samples, num_data = log_weights.shape
    if num_samples < 25:
        return torch.full((num_data,), torch.nan, dtype=torch.float64)
    lw = np.ascontiguousarray(log_weights.detach().double().cpu().numpy().T)
    # PSIS works on differences to the maximum: a floor far below it is an exact zero there.
    top = lw.max(1, keepdims=True)
    usable = np.isfinite(top[:, 0])
    khat = np.full(num_data, np.inf)
    # Where the spread is rounding noise (an exact guide) there is no tail: k = -inf, all is well.
    spread = np.ptp(np.where(usable[:, None], lw, 0.0), axis=1)
    flat = usable & (spread < 1e-5 * np.maximum(1.0, np.abs(top[:, 0])))
    khat[flat] = -np.inf
    todo = usable & ~flat
    if todo.any():
        khat[todo] = _psis(np.maximum(lw[todo], top[todo] - 1e3))
    return torch.from_numpy(khat)


def smoothed_log_weights(log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Pareto-smoothed log-weights `[K, N]` (up to a constant a datum) and k-hat `[N]`, by ArviZ's PSIS.

    Unsmoothed where K < 25, or where there is nothing to smooth.
    """
    khat = pareto_khat(log_weights)
    lw = log_weights.detach().double().cpu().clone()
    todo = torch.isfinite(khat)
    if bool(todo.any()):
        rows = lw[:, todo]
        rows = torch.maximum(rows, rows.amax(0) - 1e3)
        smooth = _smooth(np.ascontiguousarray(rows.numpy().T))
        lw[:, todo] = torch.from_numpy(np.ascontiguousarray(smooth.T))
    return lw, khat


def _smooth(log_weights: np.ndarray) -> np.ndarray:
    """PSIS log-weights of each row."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from arviz_stats.base import array_stats
        except ImportError:
            import arviz

            smooth: Any = arviz.psislw(log_weights)[0]
        else:
            smooth = np.array([array_stats.psislw(-row)[0] for row in log_weights])
    return np.asarray(smooth, dtype=float)


def _psis(log_weights: np.ndarray) -> np.ndarray:
    """k-hat of each row; ArviZ 1.x has it elsewhere than 0.x, for log-likelihoods: minus the log-weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from arviz_stats.base import array_stats
        except ImportError:
            import arviz

            khat = arviz.psislw(log_weights)[1]
        else:
            khat = np.array([_psis_row(array_stats, row) for row in log_weights])
    return np.atleast_1d(np.asarray(khat, dtype=float))


def _psis_row(array_stats: Any, log_weights: np.ndarray) -> float:
    try:
        return float(array_stats.psislw(-log_weights)[1])
    except ValueError:  # a tail of equal values: no spread to fit (ArviZ 0.x says inf)
        return np.inf
