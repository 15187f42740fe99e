"""The binomial likelihood for grey levels and counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from pyrovae.distributions import Counts

from ._from_network import FromNetwork

__all__ = ["Binomial"]


class Binomial(FromNetwork):
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
        super().__init__(net, event_shape)
        if total_count < 1:
            raise ValueError(f"expected total_count >= 1, got {total_count}")
        self.total_count = total_count

    def law(self, parameters: Tensor) -> Any:
        """Returns the law of each element from its logit."""
        return Counts(self.total_count, parameters)

    def settings(self) -> dict[str, object]:
        """Shows the highest level."""
        return {"total_count": self.total_count}
