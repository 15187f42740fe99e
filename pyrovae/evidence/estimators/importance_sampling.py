"""The importance-sampled evidence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...programs import Program
from ..core.checks import check_num_samples
from ..core.direction import Direction
from ..core.estimator import ChunkedEstimator, PerDatum
from ..core.execution import Execution
from ..weights.delete_one import is_variance, jackknife_shift
from ..weights.diagnostics import effective_sample_size, pareto_khat
from ..weights.tail import tail_allowance
from .defensive_sampling import iterate_defensive, num_chunks


@dataclass(frozen=True)
class IS(ChunkedEstimator):
    """ln p(x) >= E ln (1/K) sum_k w_k, non-decreasing in K (Burda et al. 2016).

    exp of the estimate is unbiased for p(x); the estimate itself has bias -mu_2 / (2 mu^2 K) to
    first order. Its Monte-Carlo variance is (K-1)^2 Var_i(L_{-i}) / K, with L_{-i} the estimate
    without sample i (Efron & Stein 1981); the bias indicator is IS minus the jackknife
    K L_K - (K-1) mean_i L_{-i} (Nowozin 2018).
    https://arxiv.org/abs/1509.00519, https://openreview.net/forum?id=HyZoi-WRb

    With a `defensive` share b of its draws from the prior, all weighed by the mixture they come from, weights are
    at most p(x|z) / b: a mode that the guide leaves out is found, if the prior's draws find it (Hesterberg 1995,
    https://doi.org/10.2307/1269620). Such draws are its own, and its name is "IS (defensive)".

    Args:
        num_samples: K.
        defensive: share of the prior's draws, in [0, 1).

    Raises:
        ValueError: K < 1, a share outside of [0, 1).

    Example:
        >>> import pyrovae as pv
        >>> from pyrovae.models.ground_truths import linear_gaussian
        >>> pair = linear_gaussian(8, latent_dim=2)
        >>> evidence = pv.evidence(pair.model, pair.guide, pair.x, estimators=[IS(500)])
        >>> evidence["IS"].certificate < evidence["IS"].log_evidence
        True
    """

    direction: ClassVar[Direction] = "<="  # a lower bound, in expectation
    unbiased_for_p: ClassVar[bool] = True  # E exp(estimate) = p(x)

    num_samples: int = 5000
    defensive: float = 0.0

    def __post_init__(self) -> None:
        check_num_samples(self.num_samples)
        if not 0 <= self.defensive < 1:
            raise ValueError(f"expected a defensive share in [0, 1), got {self.defensive}")

    @property
    def name(self) -> str:
        """Key in the results."""
        return "IS (defensive)" if self.defensive else "IS"

    @property
    def shares_draws(self) -> bool:
        """Whether it is made of the log-weights of the guide's draws, which all estimators share."""
        return not self.defensive

    @property
    def draws_from_guide(self) -> bool:
        """Whether it reaches no further than the guide does."""
        return not self.defensive

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

    def num_chunks(self, program: Program, budget: int | None) -> int:
        """Into how many chunks the data are divided."""
        return num_chunks(program, self.num_samples, budget)

    def run_chunks(
        self, program: Program, numbers: Iterable[int], execution: Execution
    ) -> Iterator[tuple[int, PerDatum]]:
        """Number and result of some chunks, with the defensive share; runs eagerly. Raises as `iterate_defensive`."""
        draws = iterate_defensive(program, self.num_samples, self.defensive, numbers, execution)
        for number, log_weights in draws:
            yield number, self.estimate(log_weights)


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
