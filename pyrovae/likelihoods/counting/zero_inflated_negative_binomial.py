"""The negative binomial likelihood of counts with more zeros."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyrovae import distributions

from .negative_binomial import NegativeBinomial

__all__ = ["ZeroInflatedNegativeBinomial"]


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    r"""Likelihood :math:`p(x|z) = \prod_i \pi_i [x_i = 0] + (1 - \pi_i)\, \mathrm{NB}(x_i; \mu_i, r_i)`.

    A probability mass of whole numbers; NB is that of `NegativeBinomial`, and mean and log-odds of an extra zero
    come from the network.

    Args:
        net: Network from `z` (and context) to `[..., 2 * prod(event_shape)]`: first the log-means of the
            negative binomial, then the logits of :math:`\pi`.
        inverse_dispersion: r, or its start if it is learned: a number that all elements of a datum share, or a
            tensor of the event shape.
        learn_dispersion: Learn it, as its logarithm, from a start within e^-15 ... e^15, beyond which r grows
            linearly. One that is not learned is used as it is.
        exposure: The factor on the means of the negative binomial, as for `Poisson`.
        event_shape: Shape of one datum; `(net.out_features / 2,)` if not given.

    Raises:
        ValueError: inverse_dispersion or exposure is not positive and finite, beyond its bounds or of another
            shape, or the network's width is not known or does not fill the event shape.

    References:
        Deep generative modeling for single-cell transcriptomics (Lopez et al., 2018),
        https://doi.org/10.1038/s41592-018-0229-2
    """

    outputs = 2

    def counts(self, parameters: Tensor, log_exposure: Tensor) -> Any:
        """Returns the law of each count from its log-mean, the logit of an extra zero and ln exposure."""
        raw, gate = parameters.unbind(-1)
        return distributions.ZeroInflatedNegativeBinomial(super().counts(raw, log_exposure), gate_logits=gate)
