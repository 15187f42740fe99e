"""The Bernoulli likelihood."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
from torch import Tensor

from ._from_network import FromNetwork

__all__ = ["Bernoulli"]


class Bernoulli(FromNetwork):
    r"""Likelihood :math:`p(x|z) = \prod_i p_i^{x_i} (1 - p_i)^{1 - x_i}` with logits from the network.

    For binary data. Grey levels are counts (`Binomial`), not probabilities.

    Args:
        net: Network from `z` (and context) to logits `[..., prod(event_shape)]`.
        event_shape: Shape of one datum; `(net.out_features,)` if not given.

    Raises:
        ValueError: the network's width is not known, or does not fill the event shape.
    """

    def law(self, parameters: Tensor) -> Any:
        """Returns the law of each element from its logit."""
        return dist.Bernoulli(logits=parameters)
