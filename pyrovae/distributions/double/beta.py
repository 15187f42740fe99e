"""The beta law of numbers between 0 and 1."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import constraints

__all__ = ["Beta"]


class OpenUnitInterval(constraints.Constraint):
    """Numbers between 0 and 1, without the two."""

    def check(self, value: Tensor) -> Tensor:
        """Whether values are inside."""
        return (value > 0) & (value < 1)

    def __repr__(self) -> str:
        return "OpenInterval(0, 1)"


class Beta(dist.Beta):
    r"""Numbers in (0, 1) with :math:`\ln p(x) = (a - 1) \ln x + (b - 1) \ln (1 - x) - \ln B(a, b)`, in float64.

    The ends are outside of the support, unlike in torch, where their density is 0 or infinite.

    Args:
        concentration1: a > 0.
        concentration0: b > 0.
    """

    support = OpenUnitInterval()  # type: ignore[assignment]  # narrower than torch's

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats, `[*sample, *batch]`."""
        if self._validate_args:
            self._validate_sample(value)
        a, b, x = self.concentration1.double(), self.concentration0.double(), value.double()
        front = torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b)
        result: Tensor = front + (a - 1) * x.log() + (b - 1) * torch.log1p(-x)
        return result.to(self.concentration1.dtype)

    def rsample(self, sample_shape: Any = (), **options: Any) -> Tensor:
        """Draws `[*sample, *batch]`, within the numbers of the dtype that lie in (0, 1)."""
        x: Tensor = super().rsample(Size(sample_shape), **options)
        kind = torch.finfo(x.dtype)
        return x.clamp(kind.tiny, 1 - kind.eps / 2)
