"""The law of positive numbers whose logarithm is normal."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Size, Tensor

__all__ = ["LogNormal"]


class LogNormal(dist.LogNormal):
    r"""Positive numbers with :math:`\ln p(x) = \ln N(\ln x; \mu, \sigma^2) - \ln x`, worked out in float64.

    Args:
        loc: Mean :math:`\mu` of ln x.
        scale: Standard deviation :math:`\sigma > 0` of ln x.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats, `[*sample, *batch]`."""
        if self._validate_args:
            self._validate_sample(value)
        log_x, scale = value.double().log(), self.scale.double()
        t = (log_x - self.loc.double()) / scale
        result: Tensor = -0.5 * t * t - scale.log() - 0.5 * math.log(2 * math.pi) - log_x
        return result.to(self.loc.dtype)

    def rsample(self, sample_shape: Any = Size(), **options: Any) -> Tensor:  # noqa: B008
        """Draws `[*sample, *batch]`, within the positive numbers of the dtype."""
        x: Tensor = super().rsample(sample_shape, **options)
        return x.clamp(torch.finfo(x.dtype).tiny, torch.finfo(x.dtype).max)

    def sample(self, sample_shape: Any = Size(), **options: Any) -> Tensor:  # noqa: B008
        """Draws `[*sample, *batch]` without a gradient; torch's does not come by `rsample`."""
        with torch.no_grad():
            return self.rsample(sample_shape, **options)
