"""Differences of two evidences on the same data, paired datum by datum."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...programs import check_alike
from .estimate import SANDWICH, Estimate, standard_error


@dataclass(frozen=True)
class PairedDifference:
    """Paired difference of two evidences on the same data, in nats per datum.

    Attributes:
        difference: mean of (first - second).
        se: standard error over the paired data (Monte-Carlo error included).
        directed: False where one is a bound: the difference of two lower bounds has no direction.
        sandwich_gap: the wider of the two estimators' gaps on simulated data; None where none is known.
    """

    difference: float
    se: float
    num_data: int
    directed: bool
    sandwich_gap: float | None = None

    @property
    def warnings(self) -> list[str]:
        """Claims that the difference does not support."""
        gap = self.sandwich_gap
        if gap is None or gap <= abs(self.difference):
            return []
        return [
            f"the sandwich on simulated data is {gap:.3f} nats wide, wider than the difference of "
            f"{abs(self.difference):.3f} nats: what the estimates leave out may be all of it"
        ]

    def __repr__(self) -> str:
        note = "" if self.directed else "; of two bounds: no direction"
        return f"{self.difference:+.4f} ± {self.se:.4f} nats per datum (paired, N={self.num_data}{note})"


def differences(first: Estimate, second: Estimate) -> Tensor:
    """first - second, datum by datum, `[N]`, nats.

    Raises:
        ValueError: for different numbers of data; for a mass against a density.
    """
    check_alike([("", first.measure), ("", second.measure)])
    if len(first.per_datum) != len(second.per_datum):
        raise ValueError(
            f"expected two evidences on the same data, got {len(first.per_datum)} and {len(second.per_datum)} data"
        )
    a, b = first.per_datum.cpu(), second.per_datum.cpu()
    # The same zero-probability datum on both sides is no difference, not NaN.
    return torch.where(a == b, torch.zeros_like(a), a - b)


def paired_difference(first: Estimate, second: Estimate) -> PairedDifference:
    """Mean paired difference ± SE.

    Raises:
        ValueError: for different numbers of data; for a mass against a density.
    """
    d = differences(first, second)
    se = math.hypot(standard_error(d), first.shared_error, second.shared_error)
    directed = is_directed(first, second)
    gaps = [e.details[SANDWICH] for e in (first, second) if SANDWICH in e.details]
    return PairedDifference(float(d.mean()), se, len(d), directed, max(gaps, default=None))


def is_directed(first: Estimate, second: Estimate) -> bool:
    """Whether neither is a bound only, whose difference from another one has no direction."""
    return {first.direction, second.direction} <= {"~", "="}
