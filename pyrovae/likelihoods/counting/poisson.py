"""The Poisson likelihood."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyrovae import distributions
from pyrovae.networks import soft_limit

from .._constants import LIMIT
from .exposure import Exposed

__all__ = ["Poisson"]


class Poisson(Exposed):
    r"""Likelihood of counts with rates :math:`\lambda_i = e_i \exp \mathrm{net}(z)_i`:

    .. math:: p(x|z) = \prod_i \lambda_i^{x_i} e^{-\lambda_i} / x_i! .

    A probability mass of whole numbers 0, 1, 2 ... without a largest one. The network gives log-rates; beyond
    +-15 their exponential grows linearly, so that nothing overflows. Counts that vary more than this law allows
    (variance > mean at the same z) are for `NegativeBinomial`.

    Args:
        net: Network from `z` (and context) to log-rates `[..., prod(event_shape)]`.
        exposure: The factor e on the rates, known beforehand: a number, a tensor of the event shape, or
            "context", where it is the last tensor of the context, `[N, 1]` or `[N, prod(event_shape)]`, which the
            network does not see. The total of x itself (its "library size") is no such number: with it p(x | total)
            does not sum to 1 over x, so that ln p(x) is a score, and no evidence.
        event_shape: Shape of one datum; `(net.out_features,)` if not given.

    Raises:
        ValueError: exposures that are not positive and finite or of another shape, or the network's width is
            not known or does not fill the event shape.
    """

    def counts(self, parameters: Tensor, log_exposure: Tensor) -> Any:
        """Returns the law of each count from its log-rate and ln exposure."""
        return distributions.Poisson((soft_limit(parameters, LIMIT) + log_exposure).exp())
