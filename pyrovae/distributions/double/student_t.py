"""Student's law, at any number of degrees of freedom."""

from __future__ import annotations

import math

import pyro.distributions as dist
import torch
from torch import Tensor

from .log_rising import log_rising

__all__ = ["StudentT"]


class StudentT(dist.StudentT):  # type: ignore[misc]  # Pyro has no types
    r"""Real numbers with :math:`t = (x - \mu) / s`, worked out in float64:

    .. math:: \ln p(x) = \ln \frac{\Gamma(\frac{\nu + 1}{2})}{\Gamma(\frac{\nu}{2})} - \tfrac12 \ln (\pi \nu s^2)
        - \tfrac{\nu + 1}{2} \ln (1 + t^2 / \nu) .

    Args:
        df: Degrees of freedom :math:`\nu > 0`.
        loc: :math:`\mu`.
        scale: s > 0.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats, `[*sample, *batch]`."""
        if self._validate_args:
            self._validate_sample(value)
        df, scale = self.df.double(), self.scale.double()
        t = (value.double() - self.loc.double()) / scale
        front = log_rising(df / 2, torch.full_like(df, 0.5)) - 0.5 * (math.pi * df).log() - scale.log()
        result: Tensor = front - 0.5 * (df + 1) * torch.log1p(t * t / df)
        return result.to(self.loc.dtype)
