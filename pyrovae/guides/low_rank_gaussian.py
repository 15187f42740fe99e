"""The amortised low-rank Gaussian guide."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
from torch import Tensor, nn

from pyrovae.networks import out_features_of, positive_scale

__all__ = ["LowRankGaussian"]

MAX_SLOPE = 10.0


class LowRankGaussian(nn.Module):
    r"""Guide :math:`q(z|x) = N(z; \mu, S (I + RR^\top) S)` with :math:`S = \mathrm{diag}\, \sigma(x)`.

    R(x) is `[D, rank]` with entries in (-10, 10). Between the diagonal guide and the full one: its head
    grows as D rank, not D², and its KL to a diagonal Gaussian is closed.

    Args:
        net: Network from `x` (and context) to features `[..., features]`.
        latent_dim: Number of latents D.
        rank: Number of directions in which latents vary together, 1..D.
        features: Width of the network's output, for a network without an attribute `out_features`.

    Raises:
        ValueError: a rank outside 1..D, or the width of the network's output is not known.

    References:
        Gaussian Variational Approximation with a Factor Covariance Structure (Ong et al., 2018),
        https://arxiv.org/abs/1701.03208
    """

    def __init__(self, net: nn.Module, latent_dim: int, rank: int = 1, features: int | None = None) -> None:
        super().__init__()
        if not 1 <= rank <= latent_dim:
            raise ValueError(f"expected 1 <= rank <= latent_dim={latent_dim}, got {rank}; try FullGaussian")
        self.net = net
        self.latent_dim, self.rank = latent_dim, rank
        self.head = nn.Linear(out_features_of(net, features), (2 + rank) * latent_dim)

    def forward(self, x: Tensor, *context: Tensor) -> Any:
        """Returns q(z|x), `batch_shape` the leading dims of x, `event_shape` (latent_dim,)."""
        output = self.head(self.net(x, *context)).unflatten(-1, (2 + self.rank, self.latent_dim))
        scale, slopes = positive_scale(output[..., 1, :]), output[..., 2:, :]
        # Bounded: I + R'R is factorised, and its condition number must stay within float32.
        factor = scale.unsqueeze(-2) * slopes / (1 + slopes.abs() / MAX_SLOPE)
        return dist.LowRankMultivariateNormal(output[..., 0, :], factor.mT, scale.square())

    def extra_repr(self) -> str:
        """Shows the sizes."""
        return f"latent_dim={self.latent_dim}, rank={self.rank}"
