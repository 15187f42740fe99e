"""The Gaussian likelihood with a scale of its own, fixed or learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyro.distributions as dist
from torch import Tensor, nn

from ._constants import positive_logs
from ._event import as_event, event_shape_of

__all__ = ["Gaussian"]


class Gaussian(nn.Module):
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
        super().__init__()
        self.net = net
        self.event_shape = event_shape_of(net, event_shape)
        log_scale = positive_logs(scale, self.event_shape, "scale")
        if learn_scale:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def forward(self, z: Tensor, *context: Tensor) -> Any:
        """Returns p(x|z), `batch_shape` z.shape[:-1]."""
        loc = as_event(self.net(z, *context), self.event_shape)
        return dist.Normal(loc, self.log_scale.exp()).to_event(len(self.event_shape))

    def extra_repr(self) -> str:
        """Shows the scale and the shape of one datum."""
        learned = ", learned" if isinstance(self.log_scale, nn.Parameter) else ""
        each = "one each" if self.log_scale.dim() else f"{self.log_scale.exp().item():.4g}"
        return f"scale={each}{learned}, event_shape={tuple(self.event_shape)}"
