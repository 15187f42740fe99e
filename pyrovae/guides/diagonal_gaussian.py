"""The amortised diagonal Gaussian guide."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
from torch import Tensor, nn

from pyrovae.networks import out_features_of, positive_scale

__all__ = ["DiagonalGaussian"]


class DiagonalGaussian(nn.Module):
    r"""Guide :math:`q(z|x) = N(z; \mu(x), \mathrm{diag}\, \sigma^2(x))`.

    Args:
        net: Network from `x` (and context) to features `[..., features]`.
        latent_dim: Number of latents D.
        features: Width of the network's output, for a network without an attribute `out_features`.

    Raises:
        ValueError: the width of the network's output is not known.

    References:
        Auto-Encoding Variational Bayes (Kingma & Welling, 2014), https://arxiv.org/abs/1312.6114
    """

    def __init__(self, net: nn.Module, latent_dim: int, features: int | None = None) -> None:
        super().__init__()
        self.net = net
        self.latent_dim = latent_dim
        self.head = nn.Linear(out_features_of(net, features), 2 * latent_dim)

    def forward(self, x: Tensor, *context: Tensor) -> Any:
        """Returns q(z|x), `batch_shape` the leading dims of x, `event_shape` (latent_dim,)."""
        loc, raw = self.head(self.net(x, *context)).chunk(2, dim=-1)
        return dist.Normal(loc, positive_scale(raw)).to_event(1)

    def extra_repr(self) -> str:
        """Shows the size."""
        return f"latent_dim={self.latent_dim}"
