"""Models of data of which something is given, composed for a data set."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyrovae import priors
from pyrovae.data import Dataset, prepared

from ..conditional import ConditionalVAE
from .architectures import Networks
from .vae import MakeGuide, MakeLikelihood, MakePrior, parts_for


class Standardised(nn.Module):
    """A network whose context is centred and scaled first: columns of a table come in their own units."""

    mean: Tensor
    scale: Tensor

    def __init__(self, net: nn.Module, mean: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        width = getattr(net, "out_features", None)
        if width is not None:
            self.out_features = width

    @property
    def output_bias(self) -> Tensor:
        """Bias of the network's last layer."""
        return self.net.output_bias  # type: ignore[return-value]  # of an MLP

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """The network of x and the scaled context."""
        return self.net(x, (c - self.mean) / self.scale)


def compose_conditional(
    data: Dataset,
    architecture: Networks,
    latent_dim: int,
    *,
    prior: nn.Module | MakePrior | None = None,
    guide: MakeGuide | None = None,
    likelihood: MakeLikelihood | None = None,
) -> ConditionalVAE:
    """A conditional VAE for `data`; each part may be swapped.

    Args:
        data: of `pv.data.conditioned`. Its context is taken relative to the mean and standard deviation of the training
            split's (where that is 0: to 1), except for classes, which stay 0 and 1.
        architecture, latent_dim, guide, likelihood: as in `compose`.
        prior: a prior p(z), a function `guide -> prior`; default: `ConditionalGaussian`, p(z | c).

    Raises:
        ValueError: data without such a context, or parts that do not fit each other or the data.
    """
    seen = prepared(data)
    (c,) = context_of(seen)
    width = c.shape[1]
    mean, scale = (t.cpu() for t in _scale(c))
    encoder = Standardised(architecture.encoder(seen, width), mean, scale)

    def make_net(outputs: int) -> nn.Module:
        return Standardised(architecture.decoder(seen, latent_dim + width, outputs), mean, scale)

    def given_c(guide: nn.Module) -> nn.Module:
        return priors.ConditionalGaussian(None, latent_dim, width)

    prior = given_c if prior is None else prior
    return ConditionalVAE(*parts_for(data, encoder, make_net, latent_dim, prior, guide, likelihood))


def context_of(data: Dataset) -> tuple[Tensor, ...]:
    """Context of the training split.

    Raises:
        ValueError: none, or one that is no single matrix.
    """
    found = () if data.context is None else data.context["train"]
    if len(found) != 1 or found[0].dim() != 2:
        raise ValueError(
            f"expected data with labels or columns given, got {data.spec.name} without; try --condition label (in "
            "Python pv.data.conditioned(data))"
        )
    return found


def _scale(c: Tensor) -> tuple[Tensor, Tensor]:
    classes = ((c == 0) | (c == 1)).all(0)
    deviation = c.std(0, correction=0)
    scale = torch.where(classes | (deviation == 0), torch.ones_like(deviation), deviation)
    return torch.where(classes, torch.zeros_like(scale), c.mean(0)), scale
