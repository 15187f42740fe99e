"""The mixture of discretised logistics as likelihood for grey levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ._from_network import FromNetwork
from .discretized_logistic import rounded_logistics

__all__ = ["DiscretizedLogisticMixture"]


class DiscretizedLogisticMixture(FromNetwork):
    r"""Likelihood :math:`p(x|z) = \prod_i \sum_c \pi_{ic}\, p_{ic}(x_i)` with discretised logistics p.

    Args:
        net: Network from `z` (and context) to `[..., 3 * num_components * prod(event_shape)]`: first the
            locations, then the raw scales, then the log-weights.
        levels: The number of levels L.
        num_components: Number of components C for each element of a datum, their locations spread over the
            range at zeros.
        event_shape: Shape of one datum; `(net.out_features / (3 * num_components),)` if not given.

    Raises:
        ValueError: levels < 2, no component, or the network's width is not known or does not fill the event
            shape.

    References:
        PixelCNN++ (Salimans et al., 2017), https://arxiv.org/abs/1701.05517
    """

    def __init__(
        self,
        net: nn.Module,
        levels: int,
        num_components: int = 5,
        event_shape: Sequence[int] | None = None,
    ) -> None:
        if levels < 2 or num_components < 1:
            raise ValueError(
                f"expected levels >= 2 and num_components >= 1, got {levels} and {num_components}"
            )
        super().__init__(net, event_shape, 3 * num_components)
        self.levels, self.num_components = levels, num_components

    def law(self, parameters: Tensor) -> Any:
        """Returns the law of each element from locations, raw scales and log-weights of its components."""
        loc, raw, logits = parameters.chunk(3, -1)
        # Spread over the range: components that start alike learn alike.
        start = torch.linspace(-1, 1, self.num_components + 2, dtype=loc.dtype, device=loc.device)[1:-1]
        return rounded_logistics(loc + start, raw, logits, self.levels)

    def settings(self) -> dict[str, object]:
        """Shows the sizes."""
        return {"levels": self.levels, "num_components": self.num_components}
