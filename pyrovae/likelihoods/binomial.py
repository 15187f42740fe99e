"""The binomial likelihood for grey levels and counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from pyrovae.distributions import Counts

from ._event import as_event, event_shape_of

__all__ = ["Binomial"]


class Binomial(nn.Module):
    r"""Likelihood :math:`p(x|z) = \prod_i \binom{n}{x_i} p_i^{x_i} (1 - p_i)^{n - x_i}` for levels 0..n.

    A probability mass: n = 16 for the 17-level digits, 255 for bytes, the largest count of counts.

    Args:
        net: Network from `z` (and context) to logits `[..., prod(event_shape)]`.
        total_count: The highest level n.
        event_shape: Shape of one datum; `(net.out_features,)` if not given.

    Raises:
        ValueError: total_count < 1, or the network's width is not known or does not fill the event shape.
    """

    def __init__(self, net: nn.Module, total_count: int, event_shape: Sequence[int] | None = None) -> None:
        super().__init__()
        if total_count < 1:
            raise ValueError(f"expected total_count >= 1, got {total_count}")
        self.net = net
        self.total_count = total_count
        self.event_shape = event_shape_of(net, event_shape)

    def forward(self, z: Tensor, *context: Tensor) -> Any:
        """Returns p(x|z), `batch_shape` z.shape[:-1]."""
        logits = as_event(self.net(z, *context), self.event_shape)
        return Counts(self.total_count, logits).to_event(len(self.event_shape))

    def extra_repr(self) -> str:
        """Shows the number of levels and the shape of one datum."""
        return f"total_count={self.total_count}, event_shape={tuple(self.event_shape)}"
