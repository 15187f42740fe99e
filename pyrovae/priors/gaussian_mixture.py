"""A learned mixture of diagonal Gaussians as prior."""

from __future__ import annotations

import torch
from torch import nn

from pyrovae.distributions import DiagonalGaussianMixture
from pyrovae.networks import positive_scale

__all__ = ["GaussianMixture"]


class GaussianMixture(nn.Module):
    r"""Prior :math:`p(z) = \sum_c \pi_c\, N(z; m_c, \mathrm{diag}\, s_c^2)`, all of it learned.

    Means start as draws from N(0, 1) of torch's generator (equal components would stay equal for ever),
    scales at 1, weights uniform.

    Args:
        latent_dim: Number of latents D.
        num_components: Number of components C.

    Raises:
        ValueError: one of the two is not positive.
    """

    def __init__(self, latent_dim: int, num_components: int) -> None:
        super().__init__()
        if latent_dim < 1 or num_components < 1:
            raise ValueError(
                f"expected latent_dim >= 1 and num_components >= 1, got {latent_dim} and {num_components}"
            )
        self.latent_dim = latent_dim
        self.num_components = num_components
        self.loc = nn.Parameter(torch.randn(num_components, latent_dim))
        self.raw_scale = nn.Parameter(torch.zeros(num_components, latent_dim))
        self.logits = nn.Parameter(torch.zeros(num_components))

    def forward(self) -> DiagonalGaussianMixture:
        """Returns the prior, `batch_shape` (), `event_shape` (latent_dim,)."""
        return DiagonalGaussianMixture(self.loc, positive_scale(self.raw_scale), self.logits)

    def extra_repr(self) -> str:
        """Shows the sizes."""
        return f"latent_dim={self.latent_dim}, num_components={self.num_components}"
