"""The beta likelihood for data between 0 and 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from pyrovae import distributions
from pyrovae.networks import positive_scale, soft_limit

from ._from_network import WithFloor

__all__ = ["Beta"]

LIMIT = 60.0  # e^-60 is far from the ends of float32


class Beta(WithFloor):
    r"""Likelihood of data in (0, 1) with means :math:`m_i(z)` and concentrations :math:`2 / s_i^2(z)`:

    .. math:: p(x|z) = \prod_i \frac{x_i^{a_i - 1} (1 - x_i)^{b_i - 1}}{B(a_i, b_i)}, \quad
        a_i = 2 m_i / s_i^2, \quad b_i = 2 (1 - m_i) / s_i^2 .

    A density: rates and proportions that are never 0 or 1 (where it is 0 or infinite). With those,
    `ContinuousBernoulli` has a density on all of [0, 1].

    Args:
        net: Network from `z` (and context) to `[..., 2 * prod(event_shape)]`: first the logits of the means
            (as logarithms beyond +-60), then the raw scales s; raw zeros give the mean 1/2 and s = 1, nearly the
            uniform law.
        min_scale: Floor of s, which must be there: where it may go to 0 the likelihood has no maximum.
        event_shape: Shape of one datum; `(net.out_features / 2,)` if not given.

    Raises:
        ValueError: min_scale is not positive and finite, or the network's width is not known or does not fill
            the event shape.

    References:
        Beta Regression for Modelling Rates and Proportions (Ferrari & Cribari-Neto, 2004),
        https://doi.org/10.1080/0266476042000214501
    """

    def law(self, parameters: Tensor) -> Any:
        """Returns the law of each element from logits of the means and raw scales."""
        logit, raw = parameters.unbind(-1)
        logit, total = soft_limit(logit, LIMIT), 2 * positive_scale(raw, self.min_scale) ** -2
        return distributions.Beta(total * logsigmoid(logit).exp(), total * logsigmoid(-logit).exp())

    def raw_mean(self, x: Tensor) -> Tensor:
        """Network output `[*event]` at which the mean is that of `x`, `[N, *event]`."""
        return x.double().mean(0).logit().clamp(-LIMIT, LIMIT).to(torch.get_default_dtype())
