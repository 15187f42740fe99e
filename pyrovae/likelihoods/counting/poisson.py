"""The Poisson likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from pyrovae import distributions
from pyrovae.networks import soft_limit

from .._constants import LIMIT
from .._event import as_event, event_shape_of
from .exposure import Exposure, raw_log_mean

__all__ = ["Poisson"]


class Poisson(nn.Module):
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

    def __init__(
        self,
        net: nn.Module,
        exposure: float | Tensor | Literal["context"] = 1.0,
        event_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.event_shape = event_shape_of(net, event_shape)
        self.exposure = Exposure(exposure, self.event_shape)

    def forward(self, z: Tensor, *context: Tensor) -> Any:
        """Returns p(x|z), `batch_shape` z.shape[:-1]."""
        context, log_exposure = self.exposure(z, context)
        log_rate = soft_limit(as_event(self.net(z, *context), self.event_shape), LIMIT)
        return distributions.Poisson((log_rate + log_exposure).exp()).to_event(len(self.event_shape))

    def raw_mean(self, x: Tensor) -> Tensor:
        """Network output `[*event]` at which the mean is that of `x`, `[N, *event]`."""
        return raw_log_mean(x, self.exposure)

    def extra_repr(self) -> str:
        """Shows the shape of one datum."""
        return f"event_shape={tuple(self.event_shape)}"
