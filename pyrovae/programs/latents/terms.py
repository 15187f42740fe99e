"""Log-densities along the path of an annealing, and their gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Start = Literal["prior", "guide"]


@dataclass(frozen=True)
class Terms:
    """Log-densities of K chains for n data, `[K, n]`, unscaled, masks honoured, in nats.

    Attributes:
        prior: ln p(z(u)) + ln|dz/du|.
        likelihood: ln p(x | z(u)).
        log_jacobian: ln|dz/du|, which is part of prior and guide.
        guide: ln q(z(u) | x) + ln|dz/du|; None where it was not asked for.
    """

    prior: Tensor
    likelihood: Tensor
    log_jacobian: Tensor
    guide: Tensor | None = None

    def end(self, temperature: float = 1.0) -> Tensor:
        """ln p(x, z)^{1/T} + ln|dz/du|: the power is of the density of z, not of that of u."""
        joint = self.prior + self.likelihood
        if temperature == 1:
            return joint
        return (joint - self.log_jacobian) / temperature + self.log_jacobian

    def along(self, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """(base, slope): ln pi_beta = base + beta slope, from the guide where there is one, else the prior."""
        if self.guide is not None:
            return self.guide, self.end(temperature) - self.guide
        return self.prior, self.likelihood if temperature == 1 else self.end(temperature) - self.prior


def differentiate(
    terms: Callable[[Tensor], Terms], u: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(base, slope, d base/du, d slope/du), rows being independent of each other."""
    u = u if u.requires_grad else u.detach().requires_grad_()
    found = terms(u)
    base, slope = found.along(temperature)
    # The joint by itself: the gradient of slope would pass through the guide a second time.
    joint = slope if found.guide is None else found.end(temperature)
    first, second = (_gradient(part, u) for part in (base, joint))
    if found.guide is not None:
        second = second - first
    return base.detach(), slope.detach(), first, second


def _gradient(value: Tensor, u: Tensor) -> Tensor:
    if not value.requires_grad:
        return torch.zeros_like(u)
    (grad,) = torch.autograd.grad(value.sum(), u, retain_graph=True, allow_unused=True)
    return torch.zeros_like(u) if grad is None else grad.detach()
