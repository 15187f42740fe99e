"""The importance-sampled evidence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .delete_one import is_variance, jackknife_shift
from .diagnostics import effective_sample_size, pareto_khat
from .estimators import Direction, PerDatum
from .log_weights import check_num_samples
from .tail import tail_allowance


@dataclass(frozen=True)
class IS:
    """ln p(x) >= E ln (1/K) sum_k w_k, non-decreasing in K (Burda et al. 2016).

    exp of the estimate is unbiased for p(x); the estimate itself has bias -mu_2 / (2 mu^2 K) to
    first order. Its Monte-Carlo variance is (K-1)^2 Var_i(L_{-i}) / K, with L_{-i} the estimate
    without sample i (Efron & Stein 1981); the bias indicator is IS minus the jackknife
    K L_K - (K-1) mean_i L_{-i} (Nowozin 2018).
    https://arxiv.org/abs/1509.00519, https://openreview.net/forum?id=HyZoi-WRb

    Args:
        num_samples: K.

    Raises:
        ValueError: K < 1.
    """

    name: ClassVar[str] = "IS"
    direction: ClassVar[Direction] = "<="  # a lower bound, in expectation
    unbiased_for_p: ClassVar[bool] = True  # E exp(estimate) = p(x)

    num_samples: int = 5000

    def __post_init__(self) -> None:
        check_num_samples(self.num_samples)

    def estimate(self, log_weights: Tensor) -> PerDatum:
        """ln of the mean weight, in float64."""
        lw = log_weights.double()
        k = len(lw)
        value = torch.logsumexp(lw, 0) - math.log(k)
        khat = pareto_khat(lw)
        return PerDatum(
            value,
            is_variance(lw),
            -jackknife_shift(lw),
            ess=effective_sample_size(lw),
            khat=khat,
            curve=block_curve(lw),
            details={"tail_allowance": tail_allowance(lw, khat)},
        )


def block_curve(log_weights: Tensor) -> dict[int, Tensor]:
    """L_k for k = 1, 2, 4, ... <= K: mean over disjoint blocks of k samples; k to `[N]`, in nats.

    Blocks are independent, so (unlike prefixes) the points of one k can be averaged honestly.
    """
    lw = log_weights.double()
    curve: dict[int, Tensor] = {}
    k = 1
    level = lw  # ln of sums over blocks of k; the next k pairs them up
    while True:
        curve[k] = level.mean(0) - math.log(k)
        if len(level) < 2:
            return curve
        level = torch.logaddexp(level[0 : len(level) // 2 * 2 : 2], level[1::2])
        k *= 2
