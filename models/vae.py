"""The variational autoencoder: a prior, a likelihood and a guide, composed."""

from __future__ import annotations

import pyro
from torch import Tensor, nn

from pyrovae.programs import program


class VAE(nn.Module):
    """p(x, z) = p(z) p(x | z) with guide q(z | x) (Kingma & Welling 2014, Rezende et al. 2014).

    Swap any of the three parts: each is a module that returns a Pyro distribution.
    https://arxiv.org/abs/1312.6114, https://arxiv.org/abs/1401.4082

    Args:
        prior: `prior()` is p(z), event shape `(latent_dim,)`.
        likelihood: `likelihood(z, *context)` is p(x | z), batch shape `z.shape[:-1]`.
        guide: `guide(x, *context)` is q(z | x), batch shape the leading dims of x.

    Raises:
        ValueError: prior and guide of different latent dims.

    Example:
        >>> from pyrovae import guides, likelihoods, networks, priors
        >>> vae = VAE(
        ...     prior=priors.StandardNormal(2),
        ...     likelihood=likelihoods.Bernoulli(networks.MLP(2, (32,), 64)),
        ...     guide=guides.DiagonalGaussian(networks.MLP(64, (32,), 32), latent_dim=2),
        ... )
    """

    def __init__(self, prior: nn.Module, likelihood: nn.Module, guide: nn.Module) -> None:
        super().__init__()
        check_latent_dims(prior, guide)
        self.prior = prior
        self.likelihood = likelihood
        self.q = guide

    @program(density="exact", plate="data", observed="x")
    def model(self, x: Tensor, *context: Tensor) -> None:
        """z ~ p(z), x ~ p(x | z, context), for `x` `[N, *event]`."""
        pyro.module("prior", self.prior)
        pyro.module("likelihood", self.likelihood)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.likelihood(z, *context), obs=x)

    def guide(self, x: Tensor, *context: Tensor) -> None:
        """z ~ q(z | x, context)."""
        pyro.module("guide", self.q)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.q(x, *context))


def check_latent_dims(prior: nn.Module, guide: nn.Module) -> None:
    """Raises ValueError for a prior and a guide of different latent dims, as far as they say theirs."""
    dims = [getattr(part, "latent_dim", None) for part in (prior, guide)]
    if None not in dims and dims[0] != dims[1]:
        raise ValueError(f"expected one latent_dim, got prior {dims[0]} and guide {dims[1]}")
