"""The standard normal prior."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

__all__ = ["StandardNormal"]


class StandardNormal(nn.Module):
    r"""Prior :math:`p(z) = N(z; 0, I)`, without parameters.

    Args:
        latent_dim: Number of latents D.

    Raises:
        ValueError: latent_dim is not positive.

    Example:
        >>> StandardNormal(8)().event_shape
        torch.Size([8])
    """

    loc: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        if latent_dim < 1:
            raise ValueError(f"expected latent_dim >= 1, got {latent_dim}")
        self.latent_dim = latent_dim
        # A buffer follows the module's device and dtype; nothing of it is worth saving.
        self.register_buffer("loc", torch.zeros(latent_dim), persistent=False)

    def forward(self) -> Any:
        """Returns the prior, `batch_shape` (), `event_shape` (latent_dim,)."""
        return dist.Normal(self.loc, torch.ones_like(self.loc)).to_event(1)

    def extra_repr(self) -> str:
        """Shows the size."""
        return f"latent_dim={self.latent_dim}"
