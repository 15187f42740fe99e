"""The continuous Bernoulli likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from pyrovae import distributions

from ._event import as_event, event_shape_of

__all__ = ["ContinuousBernoulli"]


class ContinuousBernoulli(nn.Module):
    r"""Likelihood :math:`p(x|z) = \prod_i C(\eta_i)\, p_i^{x_i} (1 - p_i)^{1 - x_i}` for data in [0, 1].

    A density, unlike the Bernoulli "likelihood" of grey values; its log is not comparable with the
    log-probability of levels (`Binomial`, `Categorical`).

    Args:
        net: Network from `z` (and context) to logits `[..., prod(event_shape)]`.
        event_shape: Shape of one datum; `(net.out_features,)` if not given.

    Raises:
        ValueError: the network's width is not known, or does not fill the event shape.

    References:
        The continuous Bernoulli (Loaiza-Ganem & Cunningham, 2019), https://arxiv.org/abs/1907.06845
    """

    def __init__(self, net: nn.Module, event_shape: Sequence[int] | None = None) -> None:
        super().__init__()
        self.net = net
        self.event_shape = event_shape_of(net, event_shape)

    def forward(self, z: Tensor, *context: Tensor) -> Any:
        """Returns p(x|z), `batch_shape` z.shape[:-1]."""
        logits = as_event(self.net(z, *context), self.event_shape)
        return distributions.ContinuousBernoulli(logits).to_event(len(self.event_shape))

    def extra_repr(self) -> str:
        """Shows the shape of one datum."""
        return f"event_shape={tuple(self.event_shape)}"
