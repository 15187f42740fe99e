"""The evidence lower bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..core.checks import check_num_samples
from ..core.direction import Direction
from ..core.estimator import PerDatum


@dataclass(frozen=True)
class ELBO:
    """ELBO(x) = E_q[ln w] <= ln p(x), with ln w = ln p(x, z) - ln q(z | x).

    The mean of the log-weights, always at beta = 1 whatever beta trained the program
    (Jordan et al. 1999, https://doi.org/10.1023/A:1007665907178).

    Args:
        num_samples: default: all that are drawn for other estimators, or 100.

    Example:
        >>> import pyrovae as pv
        >>> from pyrovae.models.ground_truths import linear_gaussian
        >>> pair = linear_gaussian(8, latent_dim=2)
        >>> evidence = pv.evidence(pair.model, pair.guide, pair.x, estimators=[ELBO(100)])
        >>> evidence["ELBO"].symbol  # of ln p(x) against it
        '≥'
    """

    name: ClassVar[str] = "ELBO"
    direction: ClassVar[Direction] = "<="  # a lower bound
    unbiased_for_p: ClassVar[bool] = False  # E exp(ELBO estimate) is not p(x)

    num_samples: int | None = None

    def __post_init__(self) -> None:
        if self.num_samples is not None:
            check_num_samples(self.num_samples)

    def estimate(self, log_weights: Tensor) -> PerDatum:
        """Mean and variance over samples; -inf where any weight is zero."""
        lw = log_weights.double()
        k = len(lw)
        mean = lw.mean(0)
        variance = lw.var(0) / k if k > 1 else torch.full_like(mean, torch.nan)
        return PerDatum(mean, variance, bias=torch.full_like(mean, torch.nan))
