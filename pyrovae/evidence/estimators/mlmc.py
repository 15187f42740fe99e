"""Randomised multilevel Monte Carlo: an unbiased estimate of ln p(x) itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ...programs import Program, seeded
from ..core.checks import check_density
from ..core.chunks import pairs_in
from ..core.direction import Direction
from ..core.estimator import PerDatum
from ..core.execution import Execution
from ..core.log_weights import draw
from ..core.unsupported import some
from ..weights.diagnostics import effective_sample_size, pareto_khat
from ..weights.tail import least_tail_index, tail_allowance
from .mlmc_levels import LevelSums, decay

OTHERWISE = "pv.IS (command line: --estimators is)"
ROWS = 256  # data whose levels are drawn, and whose weights are kept, at once


@dataclass(frozen=True)
class MLMC:
    """ln p(x) without bias, from L_K at random K (Ishikawa & Goda 2021, https://arxiv.org/abs/2001.04676).

    ln p(x) = lim E L_K is a telescoping sum over levels l of E Delta_l, Delta_l = L_{2^l K0} -
    (L_a + L_b) / 2 with a and b the halves of the same samples. A replicate draws a top level l with
    P(level >= l) = 2^{-r l} and 2^l K0 log-weights, and returns

        L_{K0} + sum_{j = 1..level} Delta_j / 2^{-r j},

    each term averaged over the disjoint blocks there are (Rhee & Glynn 2015,
    https://doi.org/10.1287/opre.2015.1404). Its mean is ln p(x), its mean cost
    K0 (1 - 2^{-r}) / (1 - 2^{1-r}) samples. Estimate and standard error are those of the mean over
    independent replicates.

    The variance is finite only if E Delta_l^2 falls faster than 2^{-r l} (as 2^{-2l} where weights have
    moments enough, as 2^{-(1/k - 1) l} for weights of tail index k: k < 1 / (1 + r)). A datum whose tail
    index is above that by more than its standard error, or that had K0 weights of zero (of which ln is -inf), is
    refused: its estimate is NaN, and so is the mean over data, since a mean without the hard data is no
    estimate of it. Of the other data the decay b (E Delta_l^2 ~ 2^{-b l}) is measured together; where b < r, all
    are refused. `details["refused"]` says why, `details["refused_data"]` which. `details` also has the level
    variances, b with its standard error, and the mean cost in log-weights per datum.

    Truncation: levels end at `max_level`, so the mean is exactly that of L_K with K = 2^max_level K0.
    The bias left is -mu_2 / (2 mu^2 K) to first order; it is estimated in `bias`.

    Args:
        replicates: independent replicates per datum, R.
        base: K0.
        rate: r, between 1 (below, the mean cost is infinite) and 2 (above, the variance is).
        max_level: highest level.

    Raises:
        ValueError: fewer than 2 replicates, base < 1, rate outside (1, 2), max_level < 1.

    Example:
        >>> import pyrovae as pv
        >>> from pyrovae.models.ground_truths import linear_gaussian
        >>> pair = linear_gaussian(8, latent_dim=2)
        >>> evidence = pv.evidence(pair.model, pair.guide, pair.x, estimators=[MLMC()])
        >>> evidence["MLMC"].symbol
        '≈'
    """

    name: ClassVar[str] = "MLMC"
    direction: ClassVar[Direction] = "~"  # unbiased for ln p(x), up to the truncation
    unbiased_for_p: ClassVar[bool] = False  # E exp(estimate) is not p(x)

    replicates: int = 64
    base: int = 16
    rate: float = 1.5
    max_level: int = 16

    def __post_init__(self) -> None:
        if self.replicates < 2 or self.base < 1 or self.max_level < 1:
            raise ValueError(f"expected replicates >= 2, base >= 1 and max_level >= 1, got {self}")
        if not 1 < self.rate < 2:
            raise ValueError(
                f"expected a rate in (1, 2), got {self.rate}: the mean cost is infinite at 1, the variance at 2"
            )

    @property
    def num_samples(self) -> int:
        """Base samples R K0 of a datum: those that ESS and k-hat are of."""
        return self.replicates * self.base

    @property
    def mean_cost(self) -> float:
        """Expected log-weights per datum."""
        chances = [self._chance(j) - self._chance(j + 1) for j in range(self.max_level + 1)]
        return self.num_samples * sum(c * 2**j for j, c in enumerate(chances))

    def _chance(self, level: int) -> float:
        """P(level >= this)."""
        return 2.0 ** (-self.rate * level) if level <= self.max_level else 0.0

    def run(self, program: Program, execution: Execution) -> PerDatum:
        """All data, in their order.

        Noise is seeded per chunk of data, level and part of it: equal budgets give equal numbers.
        `execution.compile` has no use here (levels differ in shape).

        Raises:
            ValueError: as `log_weights`.
        """
        check_density(program)
        device = program.arguments.x.device
        pairs = pairs_in(program, execution.budget)
        chunks = program.arguments.chunks(ROWS)
        levels = [self._levels(len(rows), execution.seed, i) for i, rows in enumerate(chunks)]
        total, done = sum(int((2**level).sum()) for level in levels) * self.base, 0
        values, base, offset = [], [], 0
        sums = LevelSums(self.max_level, sum(map(len, chunks)))
        for i, rows in enumerate(chunks):
            out = torch.empty(self.replicates, len(rows), dtype=torch.float64, device="cpu")
            first = torch.empty(self.replicates, self.base, len(rows), dtype=torch.float64, device="cpu")
            for level in levels[i].unique().tolist():
                r, n = (levels[i] == level).nonzero(as_tuple=True)
                at = 0
                for lw in self._draw(program, rows, n.to(device), level, (execution.seed, i), pairs):
                    part = slice(at, at + lw.shape[1])
                    out[r[part], n[part]] = self._replicate(lw, sums, offset + n[part])
                    first[r[part], :, n[part]] = lw[: self.base].T
                    at = part.stop
                    done += lw.numel()
                    execution.tell(done, total)
            values.append(out)
            base.append(first.flatten(0, 1))
            offset += len(rows)
        return self._result(torch.cat(values, 1), torch.cat(base, 1), sums, total)

    def _levels(self, num_data: int, seed: int, chunk: int) -> Tensor:
        with seeded(seed, "mlmc levels", chunk, device="cpu"):
            u = torch.rand(self.replicates, num_data, dtype=torch.float64, device="cpu")
        # P(level >= l) = P(u <= 2^{-r l})
        return (-u.log2() / self.rate).floor().clamp(max=self.max_level).long()

    def _draw(
        self, program: Program, rows: Tensor, n: Tensor, level: int, seed: tuple[int, int], pairs: int
    ) -> Iterator[Tensor]:
        """Log-weights `[2^level K0, m]` of the data `rows[n]`, which repeat; as many at once as fit."""
        k = self.base * 2**level
        if program.arguments.calling == "sliced":
            for part, at in enumerate(n.split(max(1, pairs // k))):
                yield self._weights(program, rows[at], k, pairs, (*seed, level, part))
            return
        # Such a program runs on all its rows: as many rounds as the datum with most replicates needs.
        order = torch.stack([(n[:i] == n[i]).sum() for i in range(len(n))])
        rounds = [
            self._weights(program, rows, k, pairs, (*seed, level, part))
            for part in range(int(order.max()) + 1)
        ]
        yield torch.stack([rounds[int(o)][:, int(d)] for o, d in zip(order, n, strict=True)], 1)

    def _weights(
        self, program: Program, rows: Tensor, k: int, pairs: int, seed: tuple[int, int, int, int]
    ) -> Tensor:
        size = max(1, pairs // len(rows))
        parts = [
            draw(program, rows, min(size, k - at), seed[0], "mlmc", *seed[1:], at).double().cpu()
            for at in range(0, k, size)
        ]
        return torch.cat(parts)

    def _replicate(self, lw: Tensor, sums: LevelSums, data: Tensor) -> Tensor:
        """L_{K0} + sum_j Delta_j / P(level >= j), `[m]`, from `[2^level K0, m]`."""
        blocks = lw.unflatten(0, (-1, self.base)).logsumexp(1) - math.log(self.base)
        out = blocks.mean(0)
        level, below = 1, blocks
        while len(below) > 1:
            a, b = below[0::2], below[1::2]
            above = torch.logaddexp(a, b) - math.log(2)
            delta = above - (a + b) / 2
            # A zero weight on both sides makes no difference.
            delta = torch.where(torch.isneginf(above), torch.zeros_like(delta), delta)
            sums.add(level, delta, data)
            out = out + delta.mean(0) / self._chance(level)
            level, below = level + 1, above
        return out

    def _result(self, values: Tensor, base: Tensor, sums: LevelSums, cost: int) -> PerDatum:
        ess, khat = effective_sample_size(base), pareto_khat(base)
        spread = (len(base) / ess - 1).clamp(min=0)  # mu_2 / mu^2
        # One weight above all others makes Delta of order 1: E Delta^2 ~ K^{1 - 1/k} for tail index k.
        limit = 1 / (1 + self.rate)
        heavy = least_tail_index(base) > limit
        zero = ~torch.isfinite(values).all(0)
        good = ~heavy & ~zero
        measured = good if bool(good.any()) else ~zero
        slope, se = decay(sums, measured)
        details: dict[str, Any] = {
            "level_variances": sums.describe(measured),
            "decay": slope,
            "decay_se": se,
            "mean_cost": cost / values.shape[1],
            "max_level": self.max_level,
            "tail_index_limit": limit,
            "tail_allowance": tail_allowance(base, khat),
        }
        refused = ~good
        reasons = []
        if bool(zero.any()):
            reasons.append(
                f"{self.base} weights of zero were drawn for {some(zero)}, and ln 0 = -inf has no mean; try a larger "
                f"base, {OTHERWISE}, or a guide within the posterior's support"
            )
        if bool((heavy & ~zero).any()):
            reasons.append(
                f"the weights' tail index is above {limit:.2f} by more than its error for {some(heavy & ~zero)}: "
                f"there the variance of this estimate is not finite; try a better guide, or {OTHERWISE}"
            )
        if slope < self.rate:
            reasons.append(
                f"level variances fall as 2^(-{slope:.2f} l), expected faster than 2^(-{self.rate:g} l): the "
                f"variance of this estimate is not finite; try a better guide, a larger base, or {OTHERWISE}"
            )
            refused = torch.ones_like(refused)
        if reasons:
            rest = values[:, ~refused].mean(0)
            if len(rest):
                reasons.append(f"the mean of the other {len(rest)} data is {float(rest.mean()):.4f}")
            details |= {"refused": "; ".join(reasons), "refused_data": refused.double()}
        values = values.masked_fill(refused, torch.nan)
        bias = -spread / (2 * self.base * 2.0**self.max_level)
        return PerDatum(
            values.mean(0), values.var(0) / len(values), bias, ess=ess, khat=khat, details=details
        )
