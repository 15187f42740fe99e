"""The gamma law of positive numbers."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Size, Tensor
from torch.distributions import constraints

__all__ = ["Gamma"]


class Gamma(dist.Gamma):
    r"""Positive numbers with :math:`\ln p(x) = a \ln b + (a - 1) \ln x - b x - \ln \Gamma(a)`, in float64.

    Zero is outside of the support, unlike in torch, where its density is 0 or infinite.

    Args:
        concentration: a > 0.
        rate: b > 0.
    """

    support = constraints.positive  # type: ignore[assignment]  # narrower than torch's

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats, `[*sample, *batch]`."""
        if self._validate_args:
            self._validate_sample(value)
        a, b, x = self.concentration.double(), self.rate.double(), value.double()
        result: Tensor = a * b.log() + (a - 1) * x.log() - b * x - torch.lgamma(a)
        return result.to(self.rate.dtype)

    def rsample(  # type: ignore[override]  # as Pyro calls it
        self,
        sample_shape: Any = Size(),  # noqa: B008
        **options: Any,
    ) -> Tensor:
        """Draws `[*sample, *batch]`, within the positive numbers of the dtype."""
        x: Tensor = super().rsample(sample_shape, **options)
        return x.clamp(torch.finfo(x.dtype).tiny, torch.finfo(x.dtype).max)
