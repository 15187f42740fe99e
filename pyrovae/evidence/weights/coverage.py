"""How right stated errors are, and how often given intervals cover: programs whose weights have a known law."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor

from ..core.estimate import Estimate
from ..core.estimator import ProgramEstimator, WeightEstimator
from ..evidence import evidence


@dataclass(frozen=True)
class Law:
    """Weights with E w = 1 of a known law: w = exp(log_weight(z)), where z is drawn from the prior.

    Attributes:
        family: of the law, in words.
        parameter: of it.
        prior: of z.
        log_weight: ln w of z, nats.
    """

    family: str
    parameter: float
    prior: TorchDistributionMixin
    log_weight: Callable[[Tensor], Tensor]

    def program(self) -> tuple[Callable[[Tensor], None], Callable[[Tensor], None]]:
        """Model and guide whose importance weights have this law: ln p(x) = 0 for every datum."""

        def model(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("x", _Known(self.log_weight(pyro.sample("z", self.prior))), obs=x)

        def guide(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", self.prior)

        return model, guide


class _Known(dist.TorchDistribution):
    """An observation of a given log-density, whatever is observed."""

    support = torch.distributions.constraints.real
    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 - torch's own form
    has_rsample = False

    def __init__(self, log_density: Tensor) -> None:
        self.log_density = log_density
        super().__init__(log_density.shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> _Known:
        return _Known(self.log_density.expand(batch_shape))

    def sample(self, sample_shape: Any = ()) -> Tensor:
        return torch.zeros(tuple(sample_shape) + self.batch_shape, dtype=self.log_density.dtype, device="cpu")

    def log_prob(self, value: Tensor) -> Tensor:
        return self.log_density.expand(torch.broadcast_shapes(value.shape, self.batch_shape))


def lognormal(variance: float) -> Law:
    """ln w ~ N(-variance / 2, variance)."""
    zero = torch.zeros((), dtype=torch.float64, device="cpu")
    return Law("lognormal", variance, dist.Normal(zero, 1.0), lambda z: variance**0.5 * z - variance / 2)


def pareto(k: float) -> Law:
    """w = (1 - k) U^{-k}, U uniform: tail index k < 1, no variance for k >= 1/2."""
    one = torch.ones((), dtype=torch.float64, device="cpu")
    return Law("Pareto", k, dist.Exponential(one), lambda z: k * z + math.log1p(-k))


@dataclass(frozen=True)
class Coverage:
    """Coverage of one estimator on weights of one law, over independent runs.

    Attributes:
        estimator: its name.
        law: of the weights.
        num_samples: K.
        level: nominal coverage.
        error_ratio: root mean square of the stated Monte-Carlo errors over the standard deviation of the estimates;
            NaN where the estimator refuses.
        given: share of runs with an interval.
        covered: share of the intervals GIVEN that hold the truth; NaN where none is given.
        refused: share of runs without any estimate.
        bias: mean of estimate - truth, nats, with its standard error.
        bias_se: of it.
        repeats: runs.
    """

    estimator: str
    law: Law
    num_samples: int
    level: float
    error_ratio: float
    given: float
    covered: float
    refused: float
    bias: float
    bias_se: float
    repeats: int


def interval_coverage(
    estimators: Sequence[WeightEstimator | ProgramEstimator],
    laws: Sequence[Law],
    *,
    num_samples: int = 1000,
    repeats: int = 400,
    level: float = 0.95,
    seed: int = 0,
) -> list[Coverage]:
    """Runs estimators on programs whose ln p(x) is 0 and whose weights have known laws.

    Args:
        estimators: with intervals: `IS`, `Jackknife`, `MLMC`.
        laws: `lognormal(variance)`, `pareto(k)`.
        num_samples: K, for the record.
        repeats: independent runs for each law.
        level: nominal coverage.
        seed: of the weights.
    """
    x = torch.zeros(repeats, dtype=torch.float64, device="cpu")
    out = []
    for law in laws:
        ev = evidence(*law.program(), x, estimators=estimators, seed=seed)
        out += [_coverage(e, law, num_samples, level) for e in ev.values()]
    return out


def _coverage(e: Estimate, law: Law, num_samples: int, level: float) -> Coverage:
    low, high = e.interval(level).unbind(-1)
    given = low.isfinite() & high.isfinite()
    covered = ((low <= 0) & (high >= 0))[given].double()
    value, variance = e.per_datum[e.per_datum.isfinite()], e.variance[e.per_datum.isfinite()]
    spread = float(value.std()) if len(value) > 1 else math.nan
    return Coverage(
        estimator=e.name,
        law=law,
        num_samples=num_samples,
        level=level,
        error_ratio=float(variance.mean().sqrt()) / spread,
        given=float(given.double().mean()),
        covered=float(covered.mean()) if len(covered) else math.nan,
        refused=1 - len(value) / len(low),
        bias=float(value.mean()),
        bias_se=spread / math.sqrt(max(1, len(value))),
        repeats=len(low),
    )
