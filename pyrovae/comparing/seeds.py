"""Means over data and seeds, with the error of each apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..evidence.core.estimate import standard_error

LEVEL = 0.95  # of the statement that an order stands


@dataclass(frozen=True)
class OverSeeds:
    """Mean over S seeds and N data of values v[s, n], nats per datum, and its two errors.

    The layout has two ways: v[s, n] = mean + datum n + seed s + rest. The error over the data is the standard error
    of the means over seeds of each datum; that over seeds is the standard deviation of the seeds' means over sqrt(S).
    `se` is the root of the sum of their squares. Each of the two holds the rest once, which the variance of the mean
    holds once in all: `se` is too large by that, and never too small in expectation.

    Attributes:
        mean: over seeds and data.
        se_data: as an estimate for the population the data came from, the seeds given.
        sd_seeds: spread of the means of single seeds; NaN for one seed.
        num_seeds, num_data: S and N.
    """

    mean: float
    se_data: float
    sd_seeds: float
    num_seeds: int
    num_data: int

    @property
    def se_seeds(self) -> float:
        """Standard error of the mean over seeds, the data given: sd / sqrt(S); NaN for one seed."""
        return self.sd_seeds / math.sqrt(self.num_seeds)

    @property
    def se(self) -> float:
        """Both errors together; of one seed, that over the data alone."""
        return self.se_data if math.isnan(self.sd_seeds) else math.hypot(self.se_data, self.se_seeds)

    def stands(self, among: int = 1, se_mc: float = 0.0) -> bool | None:
        """Whether the sign of the mean stands on the spread over seeds; None for one seed, which says nothing.

        The two-sided t interval of S - 1 degrees of freedom leaves out 0, at 95 % for all pairs of `among` programs
        at once (Bonferroni): the best was chosen after the fact. So does the normal one of the Monte-Carlo error: the
        figures of all seeds are made of the same random numbers, whose part in them the spread does not show.

        Args:
            among: number of programs.
            se_mc: Monte-Carlo error of the mean, nats.
        """
        if self.num_seeds < 2:
            return None
        from scipy.special import ndtri, stdtrit

        pairs = max(1, among * (among - 1) // 2)
        level = 1 - (1 - LEVEL) / (2 * pairs)
        spread = float(stdtrit(self.num_seeds - 1, level)) * self.se_seeds
        return abs(self.mean) > spread and abs(self.mean) > float(ndtri(level)) * se_mc


def over_seeds(values: Sequence[Tensor], shared: Sequence[float] = ()) -> OverSeeds:
    """Mean and errors of per-datum values `[N]`, one tensor a seed, in nats.

    Args:
        values: of the same data in the same order.
        shared: of each seed, an error that all its data have in common (that of ln Z).
    """
    table = torch.stack([v.detach().cpu().double() for v in values])
    per_datum, per_seed = table.mean(0), table.mean(1)
    number = len(table)
    common = math.hypot(*shared) / number if shared else 0.0
    spread = float(per_seed.std()) if number > 1 else math.nan
    return OverSeeds(
        float(per_datum.mean()),
        math.hypot(standard_error(per_datum), common),
        spread,
        number,
        table.shape[1],
    )
