"""The negative binomial likelihood of counts with more zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from pyrovae import distributions

from .._constants import constant_of, set_constant
from .._event import as_parameters, event_shape_of
from .exposure import Exposure, raw_log_mean
from .negative_binomial import counts_around

__all__ = ["ZeroInflatedNegativeBinomial"]


class ZeroInflatedNegativeBinomial(nn.Module):
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

    log_inverse_dispersion: Tensor

    def __init__(
        self,
        net: nn.Module,
        inverse_dispersion: float | Tensor = 1.0,
        learn_dispersion: bool = True,
        exposure: float | Tensor | Literal["context"] = 1.0,
        event_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.event_shape = event_shape_of(net, event_shape, 2)
        self.learn_dispersion = learn_dispersion
        set_constant(
            self,
            "log_inverse_dispersion",
            inverse_dispersion,
            self.event_shape,
            "inverse_dispersion",
            learn_dispersion,
        )
        self.exposure = Exposure(exposure, self.event_shape)

    def forward(self, z: Tensor, *context: Tensor) -> Any:
        """Returns p(x|z), `batch_shape` z.shape[:-1]."""
        context, log_exposure = self.exposure(z, context)
        raw, gate = as_parameters(self.net(z, *context), self.event_shape, 2).unbind(-1)
        r = constant_of(self.log_inverse_dispersion, self.learn_dispersion)
        counts = counts_around(raw, log_exposure, r)
        law = distributions.ZeroInflatedNegativeBinomial(counts, gate_logits=gate)
        return law.to_event(len(self.event_shape))

    def raw_mean(self, x: Tensor) -> Tensor:
        """Network output `[*event]` of log-means at which the negative binomial's mean is that of `x`."""
        return raw_log_mean(x, self.exposure)

    def extra_repr(self) -> str:
        """Shows the dispersion and the shape of one datum."""
        own = constant_of(self.log_inverse_dispersion, self.learn_dispersion)
        learned = ", learned" if self.learn_dispersion else ""
        each = "one each" if own.dim() else f"{own.item():.4g}"
        return f"inverse_dispersion={each}{learned}, event_shape={tuple(self.event_shape)}"
