"""Hamiltonian Monte Carlo along a path of densities, for all data and chains at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# u [K, n, D] to (base, slope) [K, n] and their gradients [K, n, D].
Evaluate = Callable[[Tensor], tuple[Tensor, Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class Point:
    """States of K chains for n data, with ln pi_beta = base + beta slope and gradients cached.

    With both parts at hand a change of beta costs no evaluation.
    """

    u: Tensor
    base: Tensor
    slope: Tensor
    base_grad: Tensor
    slope_grad: Tensor

    @classmethod
    def at(cls, evaluate: Evaluate, u: Tensor) -> Point:
        """Evaluates at u."""
        return cls(u, *evaluate(u))

    def log_density(self, beta: float) -> Tensor:
        """ln pi_beta up to its normaliser, `[K, n]`, float64; -inf where it is none."""
        value = self.base.double() + beta * self.slope.double()
        return torch.where(torch.isfinite(value), value, -torch.inf)

    def gradient(self, beta: float) -> Tensor:
        """Its gradient, `[K, n, D]`."""
        return torch.add(self.base_grad, self.slope_grad, alpha=beta)

    def where(self, accept: Tensor, other: Point) -> Point:
        """This one where `accept` `[K, n]`, else the other."""
        wide = accept.unsqueeze(-1)
        return Point(
            torch.where(wide, self.u, other.u),
            torch.where(accept, self.base, other.base),
            torch.where(accept, self.slope, other.slope),
            torch.where(wide, self.base_grad, other.base_grad),
            torch.where(wide, self.slope_grad, other.slope_grad),
        )


def leapfrog(
    evaluate: Evaluate, point: Point, momentum: Tensor, beta: float, step: Tensor, num_steps: int
) -> tuple[Point, Tensor]:
    """Half a kick, drift, kick, ..., drift, half a kick: symmetric, so reversible and volume-preserving.

    `step` holds a step per coordinate, that is a diagonal mass matrix in units of which the
    momentum is standard normal: u' = u + step p, p' = p + step grad ln pi (Neal 2011,
    https://arxiv.org/abs/1206.1901).
    """
    momentum = momentum + 0.5 * step * point.gradient(beta)
    for i in range(num_steps):
        point = Point.at(evaluate, torch.addcmul(point.u, step, momentum))
        kick = step if i < num_steps - 1 else 0.5 * step
        momentum = torch.addcmul(momentum, kick, point.gradient(beta))
    return point, momentum


def move(
    evaluate: Evaluate, point: Point, beta: float, step: Tensor, num_steps: int, jitter: float = 0.2
) -> tuple[Point, Tensor]:
    """One HMC transition that leaves pi_beta invariant; returns the states and P(accept) `[K, n]`.

    The step is drawn within ± jitter, whatever the state: orbits that would return to where they
    began do not. What diverges (NaN, or a density that is not finite) is rejected.
    """
    scale = 1 + jitter * (2 * torch.rand_like(point.base) - 1)
    step = step * scale.unsqueeze(-1)
    momentum = torch.randn_like(point.u)
    proposal, end = leapfrog(evaluate, point, momentum, beta, step, num_steps)
    kinetic = 0.5 * (momentum.double().square().sum(-1) - end.double().square().sum(-1))
    after = proposal.log_density(beta)
    # From a state of no density anything is a gain; such a chain has weight zero already.
    change = after - point.log_density(beta) + kinetic
    probability = torch.where(torch.isfinite(after), change.clamp(max=0.0).exp(), 0.0)
    probability = torch.nan_to_num(probability, nan=0.0)
    accept = torch.rand_like(probability) < probability
    return proposal.where(accept, point), probability
