"""The amortised flow guide: inverse autoregressive transforms of a diagonal Gaussian."""

from __future__ import annotations

from collections.abc import Sequence

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrovae.distributions import FlowDistribution
from pyrovae.networks import out_features_of, positive_scale

from ._autoregressive import Autoregressive
from .univariate import Affine, Univariate

__all__ = ["FlowGuide"]


class FlowGuide(nn.Module):
    r"""Guide :math:`z = f_T \circ \dots \circ f_1(\mu(x) + \sigma(x)\,\epsilon),\ \epsilon \sim N(0, I)`.

    Each :math:`f_t` is autoregressive, :math:`z_i \mapsto g(z_i; \theta_i)` with :math:`\theta_i` of
    :math:`z_{<i}` and the network's features h(x); the order of the latents is reversed from one to the next.
    Sampling with the sample's own density takes one pass a transform, the density of another value D passes.
    It starts near the identity; the parameters are bounded in z, so training stays finite.

    Args:
        net: Network from `x` (and context) to features `[..., features]`.
        latent_dim: Number of latents D.
        transforms: Number T of autoregressive transforms.
        hidden: Widths of the hidden layers of each transform.
        features: Width of the network's output, for a network without an attribute `out_features`.
        univariate: The transform g of one latent: `Affine()`, or `Spline(bins, bound)` for several modes.

    Raises:
        ValueError: no transform, or the width of the network's output is not known.

    References:
        Improving Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016),
        https://arxiv.org/abs/1606.04934
        Neural Spline Flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032
    """

    def __init__(
        self,
        net: nn.Module,
        latent_dim: int,
        transforms: int = 2,
        hidden: Sequence[int] = (64, 64),
        features: int | None = None,
        univariate: Univariate = Affine(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        if transforms < 1:
            raise ValueError(f"expected transforms >= 1, got {transforms}; try DiagonalGaussian for none")
        width = out_features_of(net, features)
        self.net = net
        self.latent_dim = latent_dim
        self.head = nn.Linear(width, 2 * latent_dim)
        forwards = torch.arange(latent_dim)
        self.transforms = nn.ModuleList(
            Autoregressive(forwards if t % 2 == 0 else forwards.flip(0), width, hidden, univariate)
            for t in range(transforms)
        )

    def forward(self, x: Tensor, *context: Tensor) -> FlowDistribution:
        """Returns q(z|x), `batch_shape` the leading dims of x, `event_shape` (latent_dim,)."""
        features = self.net(x, *context)
        loc, raw = self.head(features).chunk(2, dim=-1)
        base = dist.Normal(loc, positive_scale(raw)).to_event(1)
        return FlowDistribution(base, [transform(features) for transform in self.transforms])

    def extra_repr(self) -> str:
        """Shows the size."""
        return f"latent_dim={self.latent_dim}, univariate={self.transforms[0].univariate}"
