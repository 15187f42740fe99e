"""How fast the variances of a multilevel estimate fall from level to level."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Blocks that a level's mean square needs before it says anything of the decay.
MIN_BLOCKS = 30


class LevelSums:
    """Sums of Delta^2 and Delta^4 by level and datum, over replicates and blocks.

    Args:
        max_level: highest level.
        num_data: N.
    """

    def __init__(self, max_level: int, num_data: int) -> None:
        self.count, self.second, self.fourth = torch.zeros(
            3, max_level + 1, num_data, dtype=torch.float64, device="cpu"
        )

    def add(self, level: int, delta: Tensor, data: Tensor) -> None:
        """Takes in the Delta of one level, `[blocks, m]`, of the data `[m]`; infinite ones count as such."""
        square = delta.double().square()
        self.count[level].index_add_(0, data, torch.full_like(square[0], len(square)))
        self.second[level].index_add_(0, data, square.sum(0))
        self.fourth[level].index_add_(0, data, square.square().sum(0))

    def of(self, data: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Blocks, sum of Delta^2 and of Delta^4 by level, over the data of a mask `[N]`."""
        count, second, fourth = (v[:, data].sum(1) for v in (self.count, self.second, self.fourth))
        return count, second, fourth

    def describe(self, data: Tensor) -> str:
        """Level to E Delta^2, in words."""
        count, second, _ = self.of(data)
        return ", ".join(f"{j}: {second[j] / count[j]:.2e}" for j in range(1, len(count)) if count[j] > 0)


def decay(sums: LevelSums, data: Tensor) -> tuple[float, float]:
    """b and its standard error, where E Delta_l^2 ~ 2^{-b l}: weighted least squares on the logarithms.

    (inf, 0) where the levels do not differ at all (an exact guide); (nan, nan) from fewer than two
    levels.
    """
    count, total, fourth = sums.of(data)
    levels = [j for j in range(1, len(count)) if count[j] >= MIN_BLOCKS]
    squares = [float(total[j] / count[j]) for j in levels]
    if levels and max(squares) < 1e-24:
        return math.inf, 0.0
    if len(levels) < 2 or not all(map(math.isfinite, squares)) or min(squares) <= 0:
        return math.nan, math.nan
    y = torch.tensor(squares, dtype=torch.float64, device="cpu").log2()
    x = torch.tensor(levels, dtype=torch.float64, device="cpu")
    second = torch.tensor(squares, dtype=torch.float64, device="cpu")
    relative = (fourth[levels] / count[levels] / second.square() - 1) / count[levels]
    # Kurtosis is underestimated from few blocks; no level knows its logarithm that well.
    weight = 1 / (relative.clamp(min=2.0 / count[levels]) / math.log(2) ** 2)
    centre = (weight * x).sum() / weight.sum()
    spread = (weight * (x - centre).square()).sum()
    slope = (weight * (x - centre) * y).sum() / spread
    return -float(slope), float(spread.rsqrt())
