"""Schedules: numbers that change with the epoch (fractional within an epoch)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Schedule = Callable[[float], float]


@dataclass(frozen=True)
class Constant:
    """The same value throughout."""

    value: float

    def __call__(self, epoch: float) -> float:
        """The value."""
        return self.value


@dataclass(frozen=True)
class Warmup:
    """Linear from `start` to `end` over the first `epochs` epochs, then `end`.

    As a KL weight it lets the latent code form before it is priced (Bowman et al. 2016,
    https://arxiv.org/abs/1511.06349).
    """

    epochs: float
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if self.epochs <= 0:
            raise ValueError(f"expected epochs > 0, got {self.epochs}")

    def __call__(self, epoch: float) -> float:
        """The value at a (fractional) epoch."""
        return self.start + (self.end - self.start) * min(1.0, epoch / self.epochs)


@dataclass(frozen=True)
class Cyclical:
    """Periods that rise linearly from `start` to `end` in their first `rise` share, then stay.

    Fu et al. 2019, https://arxiv.org/abs/1903.10145.
    """

    period: float
    rise: float = 0.5
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if self.period <= 0 or not 0 < self.rise <= 1:
            raise ValueError(f"expected period > 0 and rise in (0, 1], got {self.period} and {self.rise}")

    def __call__(self, epoch: float) -> float:
        """The value at a (fractional) epoch."""
        phase = (epoch % self.period) / self.period
        return self.start + (self.end - self.start) * min(1.0, phase / self.rise)


@dataclass(frozen=True)
class Exponential:
    """Geometric decay from `start` to `end` over `epochs` epochs, then `end`."""

    start: float
    end: float
    epochs: float

    def __post_init__(self) -> None:
        if self.start <= 0 or self.end <= 0 or self.epochs <= 0:
            raise ValueError(f"expected start, end and epochs > 0, got {self}")

    def __call__(self, epoch: float) -> float:
        """The value at a (fractional) epoch."""
        share = min(1.0, epoch / self.epochs)
        return math.exp((1 - share) * math.log(self.start) + share * math.log(self.end))


def as_schedule(value: float | Schedule) -> Schedule:
    """A number as a constant schedule; a schedule as it is."""
    return value if callable(value) else Constant(float(value))
