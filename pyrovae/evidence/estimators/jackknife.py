"""The jackknife: importance sampling without its first-order bias."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core.checks import check_num_samples
from ..core.direction import Direction
from ..core.estimator import PerDatum
from ..weights.delete_one import jackknife_variance, log_rest
from ..weights.diagnostics import effective_sample_size, pareto_khat
from ..weights.tail import tail_allowance

# A weight that holds this share of the sum: leaving it out changes the estimate by (K-1)/K ln 2
# and more, and the jackknife is a difference of large numbers.
DOMINANT = 0.5


@dataclass(frozen=True)
class Jackknife:
    """JVI-1: J = K L_K - (K-1) mean_i L_{-i}, with L_{-i} the estimate without sample i.

    The bias of L_K is -mu_2 / (2 mu^2 K) + O(K^-2); the jackknife takes the first term off, so
    its own is O(K^-2) and it is no longer a bound (Nowozin 2018,
    https://openreview.net/forum?id=HyZoi-WRb). All L_{-i} come from one sum, in O(K). The
    Monte-Carlo variance is (K-1)^2 Var_j(J_{-j}) / K, from all jackknives of K - 1 samples (Efron &
    Stein 1981, https://doi.org/10.1214/aos/1176345462); it is NaN for K = 2.

    Where one weight dominates the sum, nothing is left to extrapolate from: `details["max_share"]`
    is the largest weight's share of the sum, and the results warn above one half.

    Args:
        num_samples: K; the draws are shared with `IS` and `ELBO`.

    Raises:
        ValueError: K < 2.

    Example:
        >>> import pyrovae as pv
        >>> from pyrovae.models.ground_truths import linear_gaussian
        >>> pair = linear_gaussian(8, latent_dim=2)
        >>> evidence = pv.evidence(pair.model, pair.guide, pair.x, estimators=[pv.IS(500), Jackknife(500)])
        >>> list(evidence)
        ['IS', 'Jackknife']
    """

    name: ClassVar[str] = "Jackknife"
    direction: ClassVar[Direction] = "~"  # asymptotically unbiased; no bound
    unbiased_for_p: ClassVar[bool] = False  # E exp(estimate) is not p(x)

    num_samples: int = 5000

    def __post_init__(self) -> None:
        check_num_samples(self.num_samples)
        if self.num_samples < 2:
            raise ValueError("expected num_samples (K) >= 2 for a jackknife, got 1")

    def estimate(self, log_weights: Tensor) -> PerDatum:
        """Estimate from `[K, N]` log-weights; -inf where all weights are zero."""
        lw = log_weights.double()
        k = len(lw)
        total = torch.logsumexp(lw, 0)
        # L_{-i} = total + rest_i - ln(K-1)
        rest = log_rest(lw)
        value = total + (k - 1) * (math.log(k - 1) - rest.mean(0)) - k * math.log(k)
        dead = total == -torch.inf
        # One weight that is not zero: without it nothing is left, and there is nothing to extrapolate from.
        value = value.masked_fill(value == torch.inf, torch.nan).masked_fill(dead, -torch.inf)
        khat = pareto_khat(lw)
        share = (lw.amax(0) - total).exp().masked_fill(dead, 1.0)
        return PerDatum(
            value,
            jackknife_variance(lw),
            bias=torch.full_like(value, torch.nan),
            ess=effective_sample_size(lw),
            khat=khat,
            details={"max_share": share, "tail_allowance": tail_allowance(lw, khat)},
        )
