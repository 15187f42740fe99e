"""Sequential Monte Carlo along annealed densities."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..chains.annealed_path import Resample
from ..chains.resampling import resample_islands
from ..core.checks import check_count
from ..core.estimator import PerDatum
from .ais import AIS


@dataclass(frozen=True)
class SMC(AIS):
    """ln p(x) >= E ln (1/R) sum_r Z_r, Z_r of an island of chains that are resampled on their way.

    The chains of AIS (see there), in R islands. Where the weights of an island have become uneven (an effective
    sample size below half of it), its chains are drawn anew by their weights: those that lead nowhere end, and those
    that carry the weight go on from where they are. E Z_r = p(x) for any number of temperatures, which a pilot has
    fixed (Del Moral et al. 2006, https://doi.org/10.1111/j.1467-9868.2006.00553.x). Chains of an island depend on each
    other, islands do not: errors are those of R independent estimates. For posteriors in which single chains get lost
    (funnels) its bound is higher than that of AIS at the same cost.

    Args:
        num_temperatures: T, both ends counted.
        num_chains: K of all islands together.
        num_islands: R.
        start, leapfrog, schedule, target_acceptance: as of `AIS`.

    Raises:
        ValueError: as `AIS`; fewer than two islands, or islands of different sizes or of one chain.

    Example:
        >>> import pyrovae as pv
        >>> from pyrovae.models.ground_truths import linear_gaussian
        >>> pair = linear_gaussian(8, latent_dim=2)
        >>> evidence = pv.evidence(pair.model, pair.guide, pair.x, estimators=[SMC(5, 16)])
        >>> list(evidence)
        ['SMC']
    """

    num_temperatures: int = 100
    num_chains: int = 256
    num_islands: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        r = self.num_islands
        check_count("num_islands", r, 2)
        if self.num_chains % r or self.num_chains < 2 * r:
            raise ValueError(
                f"expected num_chains for {r} islands of one size, of two at least, got {self.num_chains}; try "
                f"{max(2, math.ceil(self.num_chains / r)) * r}"
            )

    @property
    def name(self) -> str:
        """Key in the results."""
        return "SMC" if self.start == "guide" else "SMC (prior)"

    @property
    def num_samples(self) -> int:
        """R, the independent estimates."""
        return self.num_islands

    def _resampling(self) -> Resample:
        return lambda point, log_weights: resample_islands(point, log_weights, self.num_islands)

    def _result(self, lw: Tensor, acceptance: Tensor, integral: Tensor) -> PerDatum:
        size = self.num_chains // self.num_islands
        islands = torch.logsumexp(lw.reshape(self.num_islands, size, -1), 1) - math.log(size)
        return super()._result(islands, acceptance, integral)
