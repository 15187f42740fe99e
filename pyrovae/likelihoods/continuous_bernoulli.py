"""The continuous Bernoulli likelihood."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyrovae import distributions

from ._from_network import FromNetwork

__all__ = ["ContinuousBernoulli"]


class ContinuousBernoulli(FromNetwork):
    r"""Likelihood :math:`p(x|z) = \prod_i C(\eta_i)\, p_i^{x_i} (1 - p_i)^{1 - x_i}` for data in [0, 1].

    A density, unlike the Bernoulli "likelihood" of grey values; its log is not comparable with the
    log-probability of levels (`Binomial`, `Categorical`).

    Args:
        net: Network from `z` (and context) to logits `[..., prod(event_shape)]`.
        event_shape: Shape of one datum; `(net.out_features,)` if not given.

    Raises:
        ValueError: the network's width is not known, or does not fill the event shape.

    References:
        The continuous Bernoulli (Loaiza-Ganem & Cunningham, 2019), https://arxiv.org/abs/1907.06845
    """

    def law(self, parameters: Tensor) -> Any:
        """Returns the law of each element from its logit."""
        return distributions.ContinuousBernoulli(parameters)
