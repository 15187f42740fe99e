"""A pilot run with draws of its own, which sets step sizes and temperatures; both are frozen after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .hmc import Evaluate, Point, move

WARM_UP = 15  # moves at the first temperature
GAIN = 0.7  # on the log step per unit of acceptance
FORGET = 0.5  # of the running variance, per temperature
PRIOR_DRAWS = 4.0  # weight of the pooled variance, in chains
MIX = 0.1  # share of the pilot's own spacing in the tuned one: no interval is left empty


@dataclass(frozen=True)
class Tuning:
    """Step sizes and temperatures that a pilot has found, on its grid of temperatures.

    Attributes:
        betas: the grid, `[P]`, increasing.
        log_step: `[P, n]`, in units of the scales.
        log_scale: standard deviation per coordinate, `[P, n, D]`.
        length: cumulative thermodynamic length, integral of sd(slope) d beta, mean over data, `[P]`.
    """

    betas: Tensor
    log_step: Tensor
    log_scale: Tensor
    length: Tensor

    def steps(self, beta: float) -> Tensor:
        """Step per datum and coordinate at a temperature, `[n, D]`; a function of beta alone."""
        last = len(self.betas) - 1
        i = int(torch.searchsorted(self.betas, beta, right=True).clamp(1, last)) - 1
        low, high = float(self.betas[i]), float(self.betas[i + 1])
        share = (beta - low) / (high - low)
        log = torch.lerp(self.log_step[i], self.log_step[i + 1], share).unsqueeze(-1)
        return (log + torch.lerp(self.log_scale[i], self.log_scale[i + 1], share)).exp()

    def schedule(self, num_temperatures: int) -> tuple[float, ...]:
        """Temperatures at equal thermodynamic length from each other (Grosse et al. 2013).

        The variance of an increment of ln w is then about the same everywhere.
        https://papers.nips.cc/paper/2013/hash/fb60d411a5c5b72b2e7d3527cfc84fd0-Abstract.html
        """
        own = torch.linspace(0, 1, len(self.betas), dtype=torch.float64, device="cpu")
        total = float(self.length[-1])
        share = own if total <= 0 else (1 - MIX) * self.length / total + MIX * own
        wanted = torch.linspace(0, 1, num_temperatures, dtype=torch.float64, device="cpu")
        i = torch.searchsorted(share, wanted, right=True).clamp(1, len(share) - 1) - 1
        inside = (wanted - share[i]) / (share[i + 1] - share[i])
        betas = (self.betas[i] + inside * (self.betas[i + 1] - self.betas[i])).tolist()
        return (0.0, *betas[1:-1], 1.0)


def tune(evaluate: Evaluate, u: Tensor, betas: Sequence[float], leapfrog: int, target: float) -> Tuning:
    """Carries chains along a coarse grid of temperatures and adapts on the way.

    Step size, per datum and temperature: up or down with the acceptance (averaged over chains)
    until it is `target`, but a trajectory is at most a quarter of a Gaussian's period. Scales,
    per coordinate: the running variance over chains. The weights of these chains are not used.

    Args:
        evaluate: base, slope and gradients.
        u: exact draws at beta = 0, `[K, n, D]`, K >= 2.
        betas: from 0 to 1.
        leapfrog: steps of a move.
        target: acceptance aimed at.
    """
    point = Point.at(evaluate, u)
    variance = _variance(point)
    longest = math.log(0.5 * math.pi / leapfrog)
    log_step = torch.full(u.shape[1:2], min(math.log(0.5), longest), dtype=u.dtype, device=u.device)
    steps, scales, spread = [], [], []
    for i, beta in enumerate(betas):
        for _ in range(WARM_UP if i == 0 else 1):
            step = log_step.exp().unsqueeze(-1) * variance.sqrt()
            point, probability = move(evaluate, point, beta, step, leapfrog)
            change = GAIN * (probability.mean(0).to(u.dtype) - target)
            log_step = (log_step + change).clamp(max=longest)
        now = _variance(point)
        variance = (FORGET * variance.log() + (1 - FORGET) * now.log()).exp()
        steps.append(log_step)
        scales.append(0.5 * variance.log())
        slope = torch.where(torch.isfinite(point.slope), point.slope.double(), torch.nan)
        # A chain without density says nothing on the spread of the others.
        slope = torch.where(torch.isnan(slope), slope.nanmean(0), slope)
        spread.append(float(torch.nan_to_num(slope.std(0)).mean()))
    grid = torch.tensor(betas, dtype=torch.float64, device="cpu")
    sd = torch.tensor(spread, dtype=torch.float64, device="cpu")
    pieces = 0.5 * (sd[1:] + sd[:-1]) * grid.diff()
    length = torch.cat([grid.new_zeros(1), pieces.cumsum(0)])
    return Tuning(grid, torch.stack(steps), torch.stack(scales), length)


def _variance(point: Point) -> Tensor:
    """Over chains, `[n, D]`, drawn towards the mean over data, since chains are few.

    Coordinates without a gradient (masked latents of some data) walk as far as they are let; the others do not see it.
    """
    own = point.u.var(0)
    felt = ((point.base_grad != 0) | (point.slope_grad != 0)).any(0)
    own = own.where(felt, torch.nan)
    pooled = own.nanmean(0).nan_to_num(nan=1.0)
    k = len(point.u)
    return ((k * own + PRIOR_DRAWS * pooled) / (k + PRIOR_DRAWS)).where(felt, 1.0).clamp(min=1e-12)
