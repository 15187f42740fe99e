"""The negative binomial likelihood of overdispersed counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from pyrovae import distributions
from pyrovae.networks import soft_limit

from .._constants import LIMIT, constant_of, set_constant
from .._event import as_event, event_shape_of
from .exposure import Exposure, raw_log_mean

__all__ = ["NegativeBinomial", "counts_around"]


class NegativeBinomial(nn.Module):
    r"""Likelihood of counts, means :math:`\mu_i = e_i \exp \mathrm{net}(z)_i`, variances :math:`\mu_i + \mu_i^2 / r_i`:

    .. math:: p(x|z) = \prod_i \frac{\Gamma(r_i + x_i)}{\Gamma(r_i)\, x_i!}
        \Big(\frac{r_i}{r_i + \mu_i}\Big)^{r_i} \Big(\frac{\mu_i}{r_i + \mu_i}\Big)^{x_i} .

    A probability mass of whole numbers 0, 1, 2 ...; `Poisson` in the limit of large r.

    Args:
        net: Network from `z` (and context) to log-means `[..., prod(event_shape)]`; beyond +-15 their
            exponential grows linearly.
        inverse_dispersion: r, or its start if it is learned: a number that all elements of a datum share, or a
            tensor of the event shape.
        learn_dispersion: Learn it, as its logarithm, from a start within e^-15 ... e^15, beyond which r grows
            linearly. One that is not learned is used as it is.
        exposure: The factor e on the means, as for `Poisson`.
        event_shape: Shape of one datum; `(net.out_features,)` if not given.

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
        self.event_shape = event_shape_of(net, event_shape)
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
        raw = as_event(self.net(z, *context), self.event_shape)
        r = constant_of(self.log_inverse_dispersion, self.learn_dispersion)
        law = counts_around(raw, log_exposure, r)
        return law.to_event(len(self.event_shape))

    def raw_mean(self, x: Tensor) -> Tensor:
        """Network output `[*event]` at which the mean is that of `x`, `[N, *event]`."""
        return raw_log_mean(x, self.exposure)

    def extra_repr(self) -> str:
        """Shows the dispersion and the shape of one datum."""
        own = constant_of(self.log_inverse_dispersion, self.learn_dispersion)
        learned = ", learned" if self.learn_dispersion else ""
        each = "one each" if own.dim() else f"{own.item():.4g}"
        return f"inverse_dispersion={each}{learned}, event_shape={tuple(self.event_shape)}"


def counts_around(raw: Tensor, log_exposure: Tensor, r: Tensor) -> Any:
    """Negative binomial law, from raw log-means, ln exposure and r, all of the event shape or one for all."""
    log_mean = soft_limit(raw, LIMIT) + log_exposure
    return distributions.NegativeBinomial(r.to(raw.dtype), logits=log_mean - r.log().to(raw.dtype))
