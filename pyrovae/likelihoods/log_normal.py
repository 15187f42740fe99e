"""The log-normal likelihood for positive data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyrovae import distributions
from pyrovae.networks import positive_scale, soft_limit

from ._from_network import WithFloor

__all__ = ["LogNormal"]

LIMIT = 60.0  # e^60 is far from the ends of float32


class LogNormal(WithFloor):
    r"""Likelihood :math:`p(x|z) = \prod_i N(\ln x_i; \mu_i(z), \sigma_i^2(z)) / x_i` for positive data.

    A density of x > 0: zeros have none. It is `HeteroscedasticGaussian` of ln x, in the units of x.

    Args:
        net: Network from `z` (and context) to `[..., 2 * prod(event_shape)]`: first the means of ln x (as
            logarithms beyond +-60), then the raw scales of ln x; raw zeros give a scale of 1, and the floor.
        min_scale: Floor of the scale, which must be there: where it may go to 0 the likelihood has no maximum.
        event_shape: Shape of one datum; `(net.out_features / 2,)` if not given.

    Raises:
        ValueError: min_scale is not positive and finite, or the network's width is not known or does not fill
            the event shape.
    """

    def law(self, parameters: Tensor) -> Any:
        """Returns the law of each element from means and raw scales of ln x."""
        loc, raw = parameters.unbind(-1)
        return distributions.LogNormal(soft_limit(loc, LIMIT), positive_scale(raw, self.min_scale))

    def raw_mean(self, x: Tensor) -> Tensor:
        """Network output `[*event]` at which the mean of ln x is that of `x`, `[N, *event]`."""
        return x.double().log().mean(0).clamp(-LIMIT, LIMIT).to(torch.get_default_dtype())
