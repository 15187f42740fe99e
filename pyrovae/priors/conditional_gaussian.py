"""The diagonal Gaussian prior of which mean and scale depend on what is given."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
from torch import Tensor, nn

from pyrovae.networks import out_features_of, positive_scale

__all__ = ["ConditionalGaussian"]


class ConditionalGaussian(nn.Module):
    r"""Prior :math:`p(z|c) = N(z; m(c), \mathrm{diag}\, s^2(c))`, starting at N(0, I) for every c.

    Args:
        net: Network from the context to features `[..., features]`; None: mean and scale are linear in the context,
            which for classes is a Gaussian of its own for each.
        latent_dim: Number of latents D.
        context: Width of the context, where there is no network.

    Raises:
        ValueError: neither a network nor a width.

    References:
        Learning Structured Output Representation using Deep Conditional Generative Models (Sohn, Lee & Yan, 2015),
        https://papers.nips.cc/paper/5775

    Example:
        >>> import torch
        >>> ConditionalGaussian(None, 2, context=10)(torch.eye(10)).batch_shape
        torch.Size([10])
    """

    def __init__(self, net: nn.Module | None, latent_dim: int, context: int | None = None) -> None:
        super().__init__()
        if net is None and context is None:
            raise ValueError("expected a network, or the width of the context, got neither")
        self.net = nn.Identity() if net is None else net
        self.latent_dim = latent_dim
        width = context if net is None else out_features_of(net)
        assert width is not None
        self.head = nn.Linear(width, 2 * latent_dim)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, context: Tensor) -> Any:
        """Returns p(z|c), `batch_shape` the leading dims of c, `event_shape` (latent_dim,)."""
        loc, raw = self.head(self.net(context)).chunk(2, dim=-1)
        return dist.Normal(loc, positive_scale(raw, 0.0)).to_event(1)

    def extra_repr(self) -> str:
        """Shows the size."""
        return f"latent_dim={self.latent_dim}"
