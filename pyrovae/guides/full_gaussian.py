"""The amortised full-covariance Gaussian guide."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrovae.networks import out_features_of, positive_scale

__all__ = ["FullGaussian"]

MAX_SLOPE = 10.0


class FullGaussian(nn.Module):
    r"""Guide :math:`q(z|x) = N(z; \mu(x), LL^\top)` with :math:`L = \mathrm{diag}(\sigma(x))\,(I + R(x))`.

    R is strictly lower triangular with entries in (-10, 10): two latents can correlate up to .995.

    Args:
        net: Network from `x` (and context) to features `[..., features]`.
        latent_dim: Number of latents D; the head has D (D + 3) / 2 outputs.
        features: Width of the network's output, for a network without an attribute `out_features`.

    Raises:
        ValueError: the width of the network's output is not known.
    """

    below: Tensor

    def __init__(self, net: nn.Module, latent_dim: int, features: int | None = None) -> None:
        super().__init__()
        self.net = net
        self.latent_dim = latent_dim
        rows, columns = torch.tril_indices(latent_dim, latent_dim, -1)
        self.head = nn.Linear(out_features_of(net, features), 2 * latent_dim + len(rows))
        self.register_buffer("below", rows * latent_dim + columns, persistent=False)

    def forward(self, x: Tensor, *context: Tensor) -> Any:
        """Returns q(z|x), `batch_shape` the leading dims of x, `event_shape` (latent_dim,)."""
        dim = self.latent_dim
        loc, raw, slopes = self.head(self.net(x, *context)).split(
            [dim, dim, self.head.out_features - 2 * dim], -1
        )
        # Bounded: the density solves with L, and an unbounded ratio of slope to scale overflows there.
        slopes = slopes / (1 + slopes.abs() / MAX_SLOPE)
        ratios = slopes.new_zeros(*slopes.shape[:-1], dim * dim).index_copy(-1, self.below, slopes)
        unit = ratios.unflatten(-1, (dim, dim)) + torch.eye(dim, dtype=raw.dtype, device=raw.device)
        return dist.MultivariateNormal(loc, scale_tril=positive_scale(raw).unsqueeze(-1) * unit)

    def extra_repr(self) -> str:
        """Shows the size."""
        return f"latent_dim={self.latent_dim}"
