"""The discretised logistic likelihood for grey levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyrovae import distributions
from pyrovae.networks import positive_scale

from ._from_network import FromNetwork

__all__ = ["DiscretizedLogistic", "rounded_logistics"]


class DiscretizedLogistic(FromNetwork):
    r"""Likelihood :math:`p(x|z) = \prod_i [F_i(x_i + \tfrac12) - F_i(x_i - \tfrac12)]` for levels 0..L-1.

    F is a logistic distribution function; the first and the last level take the tails. Location and scale
    come from the network, in units of half the range: zeros mean the middle of the range and a scale of 1.

    Args:
        net: Network from `z` (and context) to `[..., 2 * prod(event_shape)]`: first the locations, then the
            raw scales.
        levels: The number of levels L.
        event_shape: Shape of one datum; `(net.out_features / 2,)` if not given.

    Raises:
        ValueError: levels < 2, or the network's width is not known or does not fill the event shape.

    References:
        Improving Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016),
        https://arxiv.org/abs/1606.04934
    """

    outputs = 2

    def __init__(self, net: nn.Module, levels: int, event_shape: Sequence[int] | None = None) -> None:
        super().__init__(net, event_shape)
        if levels < 2:
            raise ValueError(f"expected levels >= 2, got {levels}")
        self.levels = levels

    def law(self, parameters: Tensor) -> Any:
        """Returns the law of each element from its location and raw scale."""
        loc, raw = parameters.split(1, -1)
        return rounded_logistics(loc, raw, torch.zeros_like(loc), self.levels)

    def settings(self) -> dict[str, object]:
        """Shows the number of levels."""
        return {"levels": self.levels}


def rounded_logistics(loc: Tensor, raw: Tensor, logits: Tensor, levels: int) -> Any:
    """Discretised logistics, their locations and raw scales in units of half the range of the levels."""
    half = (levels - 1) / 2
    return distributions.DiscretizedLogistic(half * (1 + loc), half * positive_scale(raw), logits, levels)
