"""The gamma likelihood for positive data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyrovae import distributions
from pyrovae.networks import positive_scale, soft_limit

from ._from_network import WithFloor

__all__ = ["Gamma"]

LIMIT = 60.0  # e^60 is far from the ends of float32


class Gamma(WithFloor):
    r"""Likelihood of positive data with means :math:`m_i(z)` and standard deviations :math:`s_i(z)\, m_i(z)`:

    .. math:: p(x|z) = \prod_i \frac{b_i^{a_i}}{\Gamma(a_i)}\, x_i^{a_i - 1} e^{-b_i x_i}, \quad
        a_i = s_i^{-2}, \quad b_i = a_i / m_i .

    A density of x > 0: zeros have none. Another unit of x is another start of the means alone.

    Args:
        net: Network from `z` (and context) to `[..., 2 * prod(event_shape)]`: first the log-means (beyond +-60
            their exponential grows linearly), then the raw relative scales s; raw zeros give a mean and an s of 1.
        min_scale: Floor of s, which must be there: where it may go to 0 the likelihood has no maximum.
        event_shape: Shape of one datum; `(net.out_features / 2,)` if not given.

    Raises:
        ValueError: min_scale is not positive and finite, or the network's width is not known or does not fill
            the event shape.
    """

    def law(self, parameters: Tensor) -> Any:
        """Returns the law of each element from log-means and raw relative scales."""
        log_mean, raw = parameters.unbind(-1)
        concentration = positive_scale(raw, self.min_scale) ** -2
        rate = concentration * (-soft_limit(log_mean, LIMIT)).exp()
        return distributions.Gamma(concentration, rate)

    def raw_mean(self, x: Tensor) -> Tensor:
        """Network output `[*event]` at which the mean is that of `x`, `[N, *event]`."""
        return x.double().mean(0).log().clamp(-LIMIT, LIMIT).to(torch.get_default_dtype())
