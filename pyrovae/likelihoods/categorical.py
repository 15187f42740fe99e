"""The categorical likelihood for grey levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from pyrovae.distributions import Levels

from ._from_network import FromNetwork

__all__ = ["Categorical"]


class Categorical(FromNetwork):
    r"""Likelihood :math:`p(x|z) = \prod_i \mathrm{softmax}(\eta_i)_{x_i}` for levels 0..L-1, as floats.

    Any distribution of the levels, at the price of L outputs for each element of a datum.

    Args:
        net: Network from `z` (and context) to logits `[..., levels * prod(event_shape)]`; the levels come
            first, as the channels of a convolutional network do.
        levels: The number of levels L.
        event_shape: Shape of one datum; `(net.out_features / levels,)` if not given.

    Raises:
        ValueError: levels < 2, or the network's width is not known or does not fill the event shape.

    References:
        Pixel Recurrent Neural Networks (van den Oord et al., 2016), https://arxiv.org/abs/1601.06759
    """

    def __init__(self, net: nn.Module, levels: int, event_shape: Sequence[int] | None = None) -> None:
        if levels < 2:
            raise ValueError(f"expected levels >= 2, got {levels}")
        super().__init__(net, event_shape, levels)
        self.levels = levels

    def law(self, parameters: Tensor) -> Any:
        """Returns the law of each element from the logits of its levels."""
        return Levels(parameters)

    def settings(self) -> dict[str, object]:
        """Shows the number of levels."""
        return {"levels": self.levels}
