"""The negative binomial law of counts of any size and any dispersion."""

from __future__ import annotations

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .log_rising import log_rising

__all__ = ["NegativeBinomial"]


class NegativeBinomial(dist.NegativeBinomial):  # type: ignore[misc]  # Pyro has no types
    r"""Counts of mean :math:`\mu = r e^\eta` and variance :math:`\mu + \mu^2 / r`, worked out in float64:

    .. math:: \ln p(x) = \ln \frac{\Gamma(r + x)}{\Gamma(r)\, x!} + r \ln \sigma(-\eta) + x \ln \sigma(\eta) .

    The limit :math:`r \to \infty` at a fixed mean is the Poisson law, and is reached without loss of digits.

    Args:
        total_count: Inverse dispersion r > 0.
        logits: :math:`\eta = \ln \mu - \ln r`.
    """

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability in nats, `[*sample, *batch]`."""
        if self._validate_args:
            self._validate_sample(value)
        r, x, eta = self.total_count.double(), value.double(), self.logits.double()
        result: Tensor = log_rising(r, x) - torch.lgamma(x + 1) + r * logsigmoid(-eta) + x * logsigmoid(eta)
        return result.to(self.logits.dtype)
