"""How often intervals cover, and how often they are refused: estimators on weights with known evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .estimators import WeightEstimator
from .result import Estimate


@dataclass(frozen=True)
class Coverage:
    """Of one estimator on log-normal weights of one variance.

    Attributes:
        estimator: its name.
        variance: sigma^2 of ln w.
        level: nominal coverage.
        covered: share of all intervals that hold the truth, refused ones included: to condition on
            realised diagnostics would be to select the lucky runs.
        refused: share of intervals that the diagnostics refuse.
        bias: mean of estimate - truth, nats, with its standard error.
        bias_se: of it.
        repeats: runs.
    """

    estimator: str
    variance: float
    level: float
    covered: float
    refused: float
    bias: float
    bias_se: float
    repeats: int


def interval_coverage(
    estimators: Sequence[WeightEstimator],
    variances: Sequence[float],
    *,
    num_samples: int = 5000,
    repeats: int = 400,
    level: float = 0.95,
    seed: int = 0,
) -> list[Coverage]:
    """Runs estimators on ln w ~ N(-sigma^2 / 2, sigma^2), for which ln E w = 0.

    Args:
        estimators: of log-weights, with intervals: `IS`, `Jackknife`.
        variances: sigma^2.
        num_samples: K.
        repeats: independent runs for each variance.
        level: nominal coverage.
        seed: of the weights; the same noise serves all estimators and variances.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(num_samples, repeats, generator=generator, dtype=torch.float64)
    out = []
    for variance in variances:
        log_weights = noise * variance**0.5 - variance / 2
        for e in estimators:
            part = e.estimate(log_weights[: e.num_samples])
            estimate = Estimate(
                e.name,
                e.direction,
                e.num_samples or num_samples,
                part.log_evidence,
                part.variance,
                part.bias,
                part.ess,
                part.khat,
            )
            low, high = estimate._interval(level).unbind(-1)
            out.append(
                Coverage(
                    estimator=e.name,
                    variance=variance,
                    level=level,
                    covered=float(((low <= 0) & (high >= 0)).double().mean()),
                    refused=estimate.unreliable_share,
                    bias=estimate.log_evidence,
                    bias_se=float(part.log_evidence.std() / repeats**0.5),
                    repeats=repeats,
                )
            )
    return out
