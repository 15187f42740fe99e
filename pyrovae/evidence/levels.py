"""How fast the variances of a multilevel estimate fall from level to level."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Blocks that a level's mean square needs before it says anything of the decay.
MIN_BLOCKS = 30


class LevelSums:
    """Sums of Delta^2 and Delta^4 by level, over data, replicates and blocks."""

    def __init__(self, max_level: int) -> None:
        self.count = torch.zeros(max_level + 1, dtype=torch.float64)
        self.second = torch.zeros(max_level + 1, dtype=torch.float64)
        self.fourth = torch.zeros(max_level + 1, dtype=torch.float64)

    def add(self, level: int, delta: Tensor) -> None:
        """Takes in the Delta of one level; infinite ones count as such."""
        square = delta.double().square()
        self.count[level] += square.numel()
        self.second[level] += square.sum()
        self.fourth[level] += square.square().sum()

    def mean_square(self, level: int) -> float:
        """Estimate of E Delta^2, nats^2."""
        return float(self.second[level] / self.count[level])

    def enough(self) -> list[int]:
        """Levels whose mean square rests on blocks enough."""
        return [j for j in range(1, len(self.count)) if self.count[j] >= MIN_BLOCKS]

    def describe(self) -> str:
        """Level to E Delta^2, in words."""
        seen = [j for j in range(1, len(self.count)) if self.count[j] > 0]
        return ", ".join(f"{j}: {self.mean_square(j):.2e}" for j in seen)


def decay(sums: LevelSums) -> tuple[float, float]:
    """b and its standard error, where E Delta_l^2 ~ 2^{-b l}: weighted least squares on the logarithms.

    (inf, 0) where the levels do not differ at all (an exact guide); (nan, nan) from fewer than two
    levels.
    """
    levels = sums.enough()
    squares = [sums.mean_square(j) for j in levels]
    if levels and max(squares) < 1e-24:
        return math.inf, 0.0
    if len(levels) < 2 or not all(map(math.isfinite, squares)) or min(squares) <= 0:
        return math.nan, math.nan
    y = torch.tensor(squares, dtype=torch.float64).log2()
    x = torch.tensor(levels, dtype=torch.float64)
    second = torch.tensor(squares, dtype=torch.float64)
    relative = (sums.fourth[levels] / sums.count[levels] / second.square() - 1) / sums.count[levels]
    # Kurtosis is underestimated from few blocks; no level knows its logarithm that well.
    weight = 1 / (relative.clamp(min=2.0 / sums.count[levels]) / math.log(2) ** 2)
    centre = (weight * x).sum() / weight.sum()
    spread = (weight * (x - centre).square()).sum()
    slope = (weight * (x - centre) * y).sum() / spread
    return -float(slope), float(spread.rsqrt())
