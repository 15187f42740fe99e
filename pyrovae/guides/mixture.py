"""The amortised mixture-of-Gaussians guide."""

from __future__ import annotations

from torch import Tensor, nn

from pyrovae.distributions import PathwiseMixture
from pyrovae.networks import out_features_of, positive_scale

__all__ = ["MixtureGuide"]


class MixtureGuide(nn.Module):
    r"""Guide :math:`q(z|x) = \sum_c \pi_c(x)\, N(z; \mu_c(x), \mathrm{diag}\, \sigma_c^2(x))`.

    For posteriors with several modes. Gradients reach means, scales and weights through the sample
    (`PathwiseMixture`), at the price of a triangular solve of size D for each sample.

    Args:
        net: Network from `x` (and context) to features `[..., features]`.
        latent_dim: Number of latents D.
        num_components: Number of components C.
        features: Width of the network's output, for a network without an attribute `out_features`.

    Raises:
        ValueError: no component, or the width of the network's output is not known.

    References:
        Implicit Reparameterization Gradients (Figurnov et al., 2018), https://arxiv.org/abs/1805.08498
    """

    def __init__(
        self, net: nn.Module, latent_dim: int, num_components: int = 5, features: int | None = None
    ) -> None:
        super().__init__()
        if num_components < 1:
            raise ValueError(
                f"expected num_components >= 1, got {num_components}; try DiagonalGaussian for one"
            )
        self.net = net
        self.latent_dim, self.num_components = latent_dim, num_components
        self.head = nn.Linear(out_features_of(net, features), num_components * (2 * latent_dim + 1))

    def forward(self, x: Tensor, *context: Tensor) -> PathwiseMixture:
        """Returns q(z|x), `batch_shape` the leading dims of x, `event_shape` (latent_dim,)."""
        output = self.head(self.net(x, *context)).unflatten(-1, (self.num_components, -1))
        loc, raw, logits = output.split([self.latent_dim, self.latent_dim, 1], -1)
        return PathwiseMixture(loc, positive_scale(raw), logits.squeeze(-1))

    def extra_repr(self) -> str:
        """Shows the sizes."""
        return f"latent_dim={self.latent_dim}, num_components={self.num_components}"
