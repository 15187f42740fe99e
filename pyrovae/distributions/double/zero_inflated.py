"""The negative binomial law with more zeros."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

__all__ = ["ZeroInflatedNegativeBinomial"]


class ZeroInflatedNegativeBinomial(dist.ZeroInflatedDistribution):
    r"""Counts with :math:`p(x) = \pi\, [x = 0] + (1 - \pi)\, \mathrm{NB}(x)`, :math:`\pi = \sigma(g)`.

    Args:
        base_dist: The negative binomial law (`NegativeBinomial` of this room).
        gate_logits: g, the log-odds of an extra zero.
    """

    def expand(self, batch_shape: Any, _instance: Any = None) -> ZeroInflatedNegativeBinomial:
        """Returns the distribution with another batch shape; Pyro's fails once a draw has been made."""
        counts, gate = self.base_dist.expand(batch_shape), self.gate_logits.expand(batch_shape)
        new = type(self)(counts, gate_logits=gate, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability in nats, `[*sample, *batch]`."""
        if self._validate_args:
            self._validate_sample(value)
        gate, counts = self.gate_logits.double(), self.base_dist.log_prob(value).double()
        counts = logsigmoid(-gate) + counts
        result = torch.where(value == 0, torch.logaddexp(logsigmoid(gate), counts), counts)
        return result.to(self.gate_logits.dtype)
