"""The Gaussian likelihood with a scale of its own, fixed or learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
from torch import Tensor, nn

from ._constants import positive_logs, shown
from ._from_network import FromNetwork

__all__ = ["Gaussian"]


class Gaussian(FromNetwork):
    r"""Likelihood :math:`p(x|z) = \prod_i N(x_i; \mathrm{net}(z)_i, \sigma_i^2)`, :math:`\sigma` the same for all z.

    For a scale that depends on z see `HeteroscedasticGaussian`.

    Args:
        net: Network from `z` (and context) to means `[..., prod(event_shape)]`.
        scale: The standard deviation, or its start if it is learned: a number for one that all elements of a
            datum share, a tensor of the event shape for one each.
        learn_scale: Learn it, as its logarithm.
        event_shape: Shape of one datum; `(net.out_features,)` if not given.

    Raises:
        ValueError: scale is not positive and finite or not of the event shape, or the network's width is not
            known or does not fill the event shape.
    """

    log_scale: Tensor

    def __init__(
        self,
        net: nn.Module,
        scale: float | Tensor = 1.0,
        learn_scale: bool = False,
        event_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__(net, event_shape)
        log_scale = positive_logs(scale, self.event_shape, "scale")
        if learn_scale:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def law(self, parameters: Tensor) -> Any:
        """Returns the law of each element from its mean."""
        return dist.Normal(parameters, self.log_scale.exp())

    def settings(self) -> dict[str, object]:
        """Shows the scale."""
        return {"scale": shown(self.log_scale.exp(), isinstance(self.log_scale, nn.Parameter))}
