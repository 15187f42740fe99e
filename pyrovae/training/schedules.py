"""Schedules: numbers that change with the epoch (fractional within an epoch)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

Schedule = Callable[[float], float]


@dataclass(frozen=True)
class Constant:
    """The same value throughout.

    Example:
        >>> Constant(0.5)(7.0)
        0.5
    """

    value: float

    def __call__(self, epoch: float) -> float:
        """The value."""
        return self.value


@dataclass(frozen=True)
class Warmup:
    """Linear from `start` to `end` over the first `epochs` epochs, then `end`.

    As a KL weight it lets the latent code form before it is priced (Bowman et al. 2016,
    https://arxiv.org/abs/1511.06349).

    Example:
        >>> Warmup(20)(10.0)
        0.5
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

    Example:
        >>> Cyclical(10)(0.0), Cyclical(10)(9.5)
        (0.0, 1.0)
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
    """Geometric decay from `start` to `end` over `epochs` epochs, then `end`.

    Example:
        >>> Exponential(1.0, 0.25, epochs=10)(5.0)
        0.5
    """

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


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from `start` to `end` over `epochs` epochs, then `end`.

    Loshchilov and Hutter 2017, https://arxiv.org/abs/1608.03983, without restarts. The first
    `warmup` of the epochs rise linearly from 0 to `start`.

    Example:
        >>> schedule = Cosine(start=1e-3, end=1e-5, epochs=100)
        >>> schedule(0.0) > schedule(50.0) > schedule(99.0)
        True
    """

    start: float
    epochs: float
    end: float = 0.0
    warmup: float = 0.0

    def __post_init__(self) -> None:
        if min(self.start, self.end) < 0 or not 0 <= self.warmup < self.epochs:
            raise ValueError(f"expected start and end >= 0 and 0 <= warmup < epochs, got {self}")

    def __call__(self, epoch: float) -> float:
        """The value at a (fractional) epoch."""
        if epoch < self.warmup:
            return self.start * epoch / self.warmup
        share = min(1.0, (epoch - self.warmup) / (self.epochs - self.warmup))
        return self.end + (self.start - self.end) * 0.5 * (1 + math.cos(math.pi * share))


@dataclass(frozen=True)
class IWAEStages:
    """Learning rates of Burda et al.: stage i = 0..7 lasts 3^i epochs at `start` 10^(-i/7).

    3280 epochs in all (`epochs`), then the last stage's rate. Burda, Grosse and Salakhutdinov
    2016, section 5, https://arxiv.org/abs/1509.00519.

    Args:
        start: rate of the first stage.
        stages: their number; the last has a tenth of the first one's rate.
        unit: epochs of the first stage (a fraction makes the whole shorter).

    Example:
        >>> IWAEStages().epochs
        3280.0
    """

    start: float = 1e-3
    stages: int = 8
    unit: float = 1.0

    def __post_init__(self) -> None:
        if self.start <= 0 or self.stages < 2 or self.unit <= 0:
            raise ValueError(f"expected start > 0, stages >= 2 and unit > 0, got {self}")

    @property
    def epochs(self) -> float:
        """Epochs of all stages."""
        return float(self.unit * (3**self.stages - 1) / 2)

    def __call__(self, epoch: float) -> float:
        """The value at a (fractional) epoch."""
        ends = (self.unit * (3 ** (i + 1) - 1) / 2 for i in range(self.stages - 1))
        stage = sum(epoch >= end for end in ends)
        return float(self.start * 10 ** (-stage / (self.stages - 1)))


def as_schedule(value: float | Schedule) -> Schedule:
    """A number as a constant schedule; a schedule as it is."""
    return value if callable(value) else Constant(float(value))
