"""The Gaussian likelihood whose scale comes from the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
from torch import Tensor, nn

from pyrovae.networks import positive_scale

from ._constants import checked_floor
from ._event import as_parameters, event_shape_of

__all__ = ["HeteroscedasticGaussian"]


class HeteroscedasticGaussian(nn.Module):
    r"""Likelihood :math:`p(x|z) = \prod_i N(x_i; \mu_i(z), \sigma_i^2(z))`, mean and scale of the network.

    Args:
        net: Network from `z` (and context) to `[..., 2 * prod(event_shape)]`: first the means, then the raw
            scales; raw zeros give a scale of 1.
        min_scale: Floor of the scale, which must be there: where the scale may go to 0 the likelihood has no
            maximum.
        event_shape: Shape of one datum; `(net.out_features / 2,)` if not given.

    Raises:
        ValueError: min_scale is not positive and finite, or the network's width is not known or does not
            fill the event shape.

    References:
        Leveraging the Exact Likelihood of Deep Latent Variable Models (Mattei & Frellsen, 2018),
        https://arxiv.org/abs/1802.04826
    """

    def __init__(
        self, net: nn.Module, min_scale: float = 1e-2, event_shape: Sequence[int] | None = None
    ) -> None:
        super().__init__()
        self.net, self.min_scale = net, checked_floor(min_scale)
        self.event_shape = event_shape_of(net, event_shape, 2)

    def forward(self, z: Tensor, *context: Tensor) -> Any:
        """Returns p(x|z), `batch_shape` z.shape[:-1]."""
        loc, raw = as_parameters(self.net(z, *context), self.event_shape, 2).unbind(-1)
        return dist.Normal(loc, positive_scale(raw, self.min_scale)).to_event(len(self.event_shape))

    def extra_repr(self) -> str:
        """Shows the floor and the shape of one datum."""
        return f"min_scale={self.min_scale:g}, event_shape={tuple(self.event_shape)}"
