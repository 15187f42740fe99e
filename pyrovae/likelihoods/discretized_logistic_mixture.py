"""The mixture of discretised logistics as likelihood for grey levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ._event import as_parameters, event_shape_of
from .discretized_logistic import rounded_logistics

__all__ = ["DiscretizedLogisticMixture"]


class DiscretizedLogisticMixture(nn.Module):
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
        super().__init__()
        if levels < 2 or num_components < 1:
            raise ValueError(
                f"expected levels >= 2 and num_components >= 1, got {levels} and {num_components}"
            )
        self.net, self.levels, self.num_components = net, levels, num_components
        self.event_shape = event_shape_of(net, event_shape, 3 * num_components)

    def forward(self, z: Tensor, *context: Tensor) -> Any:
        """Returns p(x|z), `batch_shape` z.shape[:-1]."""
        output = as_parameters(self.net(z, *context), self.event_shape, 3 * self.num_components)
        loc, raw, logits = output.chunk(3, -1)
        # Spread over the range: components that start alike learn alike.
        start = torch.linspace(-1, 1, self.num_components + 2, dtype=loc.dtype, device=loc.device)[1:-1]
        return rounded_logistics(loc + start, raw, logits, self.levels).to_event(len(self.event_shape))

    def extra_repr(self) -> str:
        """Shows the sizes and the shape of one datum."""
        sizes = f"levels={self.levels}, num_components={self.num_components}"
        return f"{sizes}, event_shape={tuple(self.event_shape)}"
