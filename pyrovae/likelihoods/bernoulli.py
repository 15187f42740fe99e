"""The Bernoulli likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
from torch import Tensor, nn

from ._event import as_event, event_shape_of

__all__ = ["Bernoulli"]


class Bernoulli(nn.Module):
    r"""Likelihood :math:`p(x|z) = \prod_i p_i^{x_i} (1 - p_i)^{1 - x_i}` with logits from the network.

    For binary data. Grey levels are counts (`Binomial`), not probabilities.

    Args:
        net: Network from `z` (and context) to logits `[..., prod(event_shape)]`.
        event_shape: Shape of one datum; `(net.out_features,)` if not given.

    Raises:
        ValueError: the network's width is not known, or does not fill the event shape.
    """

    def __init__(self, net: nn.Module, event_shape: Sequence[int] | None = None) -> None:
        super().__init__()
        self.net = net
        self.event_shape = event_shape_of(net, event_shape)

    def forward(self, z: Tensor, *context: Tensor) -> Any:
        """Returns p(x|z), `batch_shape` z.shape[:-1]."""
        logits = as_event(self.net(z, *context), self.event_shape)
        return dist.Bernoulli(logits=logits).to_event(len(self.event_shape))

    def extra_repr(self) -> str:
        """Shows the shape of one datum."""
        return f"event_shape={tuple(self.event_shape)}"
