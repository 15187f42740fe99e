"""The Gaussian likelihood whose scale comes from the network."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
from torch import Tensor

from pyrovae.networks import positive_scale

from ._from_network import WithFloor

__all__ = ["HeteroscedasticGaussian"]


class HeteroscedasticGaussian(WithFloor):
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

    def law(self, parameters: Tensor) -> Any:
        """Returns the law of each element from means and raw scales."""
        loc, raw = parameters.unbind(-1)
        return dist.Normal(loc, positive_scale(raw, self.min_scale))
