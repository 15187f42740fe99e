"""The learned diagonal Gaussian prior."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import nn

from pyrovae.networks import positive_scale

__all__ = ["DiagonalGaussian"]


class DiagonalGaussian(nn.Module):
    r"""Prior :math:`p(z) = N(z; m, \mathrm{diag}\, s^2)`, mean and scale learned, starting at N(0, I).

    Args:
        latent_dim: Number of latents D.

    Raises:
        ValueError: latent_dim is not positive.

    Example:
        >>> DiagonalGaussian(8)().event_shape
        torch.Size([8])
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        if latent_dim < 1:
            raise ValueError(f"expected latent_dim >= 1, got {latent_dim}")
        self.latent_dim = latent_dim
        self.loc = nn.Parameter(torch.zeros(latent_dim))
        self.raw_scale = nn.Parameter(torch.zeros(latent_dim))

    def forward(self) -> Any:
        """Returns the prior, `batch_shape` (), `event_shape` (latent_dim,)."""
        return dist.Normal(self.loc, positive_scale(self.raw_scale)).to_event(1)

    def extra_repr(self) -> str:
        """Shows the size."""
        return f"latent_dim={self.latent_dim}"
