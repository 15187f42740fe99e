"""The negative binomial likelihood of overdispersed counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn

from pyrovae import distributions
from pyrovae.networks import soft_limit

from .._constants import LIMIT, constant_of, set_constant, shown
from .exposure import Exposed

__all__ = ["NegativeBinomial"]


class NegativeBinomial(Exposed):
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
        super().__init__(net, exposure, event_shape)
        self.learn_dispersion = learn_dispersion
        set_constant(
            self,
            "log_inverse_dispersion",
            inverse_dispersion,
            self.event_shape,
            "inverse_dispersion",
            learn_dispersion,
        )

    @property
    def inverse_dispersion(self) -> Tensor:
        """r, of the event shape or one for all."""
        return constant_of(self.log_inverse_dispersion, self.learn_dispersion)

    def counts(self, parameters: Tensor, log_exposure: Tensor) -> Any:
        """Returns the law of each count from its log-mean and ln exposure."""
        r, log_mean = self.inverse_dispersion, soft_limit(parameters, LIMIT) + log_exposure
        return distributions.NegativeBinomial(r.to(log_mean), logits=log_mean - r.log().to(log_mean))

    def settings(self) -> dict[str, object]:
        """Shows the dispersion."""
        return {"inverse_dispersion": shown(self.inverse_dispersion, self.learn_dispersion)}
