"""Optimisation of distributions of each datum's own, side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LocalFit:
    """How per-datum distributions are optimised: Adam on E_q[ln w], all data in one tensor.

    Adam acts on each number alone, so data do not see each other: it is as if each were optimised by itself.

    Args:
        steps: of Adam.
        num_particles: draws per datum and step.
        lr: first learning rate, in unconstrained space; it falls to 0 along half a cosine, which averages the
            noise of the gradient away.

    Raises:
        ValueError: fewer than one step, fewer than two particles, lr <= 0.

    Example:
        >>> LocalFit(steps=500).steps
        500
    """

    steps: int = 1000
    num_particles: int = 16
    lr: float = 0.03

    def __post_init__(self) -> None:
        counts = (self.steps, self.num_particles)
        whole = all(isinstance(v, int) and not isinstance(v, bool) for v in counts)
        if not whole or not isinstance(self.lr, int | float):
            raise TypeError(f"expected whole numbers of steps and num_particles and a number lr, got {self}")
        if self.steps < 1 or self.num_particles < 2 or not 0 < self.lr < math.inf:
            raise ValueError(f"expected steps >= 1, num_particles >= 2 and a finite lr > 0, got {self}")

    def minimise(
        self,
        leaves: Sequence[Tensor],
        gradients: Callable[[], Sequence[Tensor | None]],
        advance: Callable[[], None] | None = None,
    ) -> None:
        """Moves `leaves` in place, against gradients of fresh draws, summed over data."""
        if not leaves:
            return
        optimizer = torch.optim.Adam(leaves, lr=self.lr, betas=(0.9, 0.99))
        for step in range(self.steps):
            for group in optimizer.param_groups:
                group["lr"] = 0.5 * self.lr * (1 + math.cos(math.pi * step / self.steps))
            for leaf, grad in zip(leaves, gradients(), strict=True):
                # A datum without a finite density somewhere must not stop the others.
                leaf.grad = None if grad is None else torch.nan_to_num(grad, posinf=0.0, neginf=0.0)
            optimizer.step()
            if advance is not None:
                advance()
        for leaf in leaves:
            leaf.grad = None
