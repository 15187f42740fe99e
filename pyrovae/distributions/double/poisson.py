"""The Poisson law of counts of any size."""

from __future__ import annotations

from typing import Any, ClassVar

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

__all__ = ["Poisson"]


class Poisson(dist.Poisson):
    r"""Counts with :math:`\ln p(x) = x \ln \lambda - \lambda - \ln x!`, worked out in float64.

    Args:
        rate: Mean :math:`\lambda > 0`, any shape.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {"rate": constraints.positive}  # type: ignore[misc]  # torch has it on the class

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability in nats, `[*sample, *batch]`."""
        if self._validate_args:
            self._validate_sample(value)
        rate, x = self.rate.double(), value.double()
        result: Tensor = torch.xlogy(x, rate) - rate - torch.lgamma(x + 1)
        return result.to(self.rate.dtype)
