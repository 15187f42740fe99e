"""Temperatures, and chains that are carried along them while their weights add up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .hmc import Evaluate, Point, move

# beta to the step per datum and coordinate, [n, D]
Steps = Callable[[float], Tensor]
# (states, log-weights) to others that stand for the same density
Resample = Callable[[Point, Tensor], tuple[Point, Tensor]]
# (index of the temperature, states there, log-weights there)
Observe = Callable[[int, Point, Tensor], None]


def power_schedule(num_temperatures: int, power: float = 4.0) -> Tensor:
    """beta_t = (t / (T - 1))^power: dense at the prior (Friel & Pettitt 2008).

    https://doi.org/10.1111/j.1467-9868.2007.00650.x
    """
    check_num_temperatures(num_temperatures)
    return torch.linspace(0, 1, num_temperatures, dtype=torch.float64, device="cpu") ** power


def check_num_temperatures(value: Any) -> None:
    """Raises ValueError unless it is a whole number >= 2: both ends are temperatures."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 2:
        raise ValueError(f"expected num_temperatures to be a whole number >= 2 (both ends), got {value!r}")


def check_schedule(betas: Sequence[float]) -> tuple[float, ...]:
    """The temperatures as numbers.

    Raises:
        ValueError: unless they rise from 0 to 1.
    """
    values = tuple(float(b) for b in betas)
    check_num_temperatures(len(values))
    rising = all(a < b for a, b in pairwise(values))
    if values[0] != 0.0 or values[-1] != 1.0 or not rising:
        raise ValueError(
            f"expected a schedule that rises from 0 to 1, got {len(values)} values from {values[0]} to "
            f"{values[-1]}{'' if rising else ', not always rising'}; try power_schedule(T)"
        )
    return values


@dataclass(frozen=True)
class Annealed:
    """Results of a run along the temperatures.

    Attributes:
        log_weights: sum of (beta_t - beta_{t-1}) slope(u_{t-1}), `[K, n]`, float64, nats.
        acceptance: mean probability of acceptance over moves, `[K, n]`; NaN without moves.
        point: the last states.
    """

    log_weights: Tensor
    acceptance: Tensor
    point: Point


def anneal(
    evaluate: Evaluate,
    point: Point,
    betas: Sequence[float],
    steps: Steps,
    leapfrog: int,
    observe: Observe | None = None,
    advance: Callable[[], None] | None = None,
    resample: Resample | None = None,
) -> Annealed:
    """Weight first, then move (Neal 2001, https://arxiv.org/abs/physics/9803008).

    Forward (betas from 0 to 1, exact draws at 0) E[w] = Z_1 / Z_0. Backward (betas from 1 to 0,
    exact draws at 1) the same sum has E[w] = Z_0 / Z_1, hence the upper bound -ln mean w.
    `steps` must not depend on these chains: then every move leaves its density invariant.

    Args:
        evaluate: base, slope and gradients.
        point: the starting states.
        betas: in the order in which they are passed.
        steps: step sizes at a temperature, fixed beforehand.
        leapfrog: steps of one move.
        observe: called at every temperature; asks for a move at the last one too.
        advance: called after every temperature.
        resample: called between weighing and moving, at every temperature but the last.
    """
    total = torch.zeros_like(point.base, dtype=torch.float64)
    accepted = torch.zeros_like(total)
    moves = 0
    if observe is not None:
        observe(0, point, total)
    last = len(betas) - 1
    for t in range(1, last + 1):
        total = total + (betas[t] - betas[t - 1]) * point.slope.double()
        if resample is not None and t < last:
            point, total = resample(point, total)
        if t < last or observe is not None:
            point, probability = move(evaluate, point, betas[t], steps(betas[t]), leapfrog)
            accepted = accepted + probability
            moves += 1
        if observe is not None:
            observe(t, point, total)
        if advance is not None:
            advance()
    # A state without density stays without weight: -inf + inf is no weight either.
    total = torch.where(torch.isnan(total), -torch.inf, total)
    return Annealed(total, accepted / moves if moves else torch.full_like(total, torch.nan), point)
