"""The conditional variational autoencoder: labels or columns of a table are given."""

from __future__ import annotations

import pyro
from torch import Tensor, nn

from pyrovae.priors import ConditionalGaussian
from pyrovae.programs import program

from .vae import check_latent_dims


class ConditionalVAE(nn.Module):
    """p(x, z | c) = p(z | c) p(x | z, c) with guide q(z | x, c) (Sohn et al. 2015, Kingma et al. 2014).

    Its evidence is ln p(x | c): that of a datum under what is given, and not comparable with ln p(x).
    https://papers.nips.cc/paper/5775, https://arxiv.org/abs/1406.5298

    Args:
        prior: `prior()` is p(z), the same for every c; or a `ConditionalGaussian`, whose `prior(c)` is p(z | c).
        likelihood: `likelihood(z, c)` is p(x | z, c).
        guide: `guide(x, c)` is q(z | x, c).

    Raises:
        ValueError: prior and guide of different latent dims.

    Example:
        >>> from pyrovae import guides, likelihoods, networks, priors
        >>> cvae = ConditionalVAE(
        ...     prior=priors.ConditionalGaussian(None, 2, context=10),
        ...     likelihood=likelihoods.Bernoulli(networks.MLP(2 + 10, (32,), 64)),
        ...     guide=guides.DiagonalGaussian(networks.MLP(64 + 10, (32,)), latent_dim=2),
        ... )
    """

    def __init__(self, prior: nn.Module, likelihood: nn.Module, guide: nn.Module) -> None:
        super().__init__()
        check_latent_dims(prior, guide)
        self.prior = prior
        self.likelihood = likelihood
        self.q = guide

    @program(density="exact", plate="data", observed="x")
    def model(self, x: Tensor, c: Tensor) -> None:
        """z ~ p(z | c), x ~ p(x | z, c), for `x` `[N, *event]` and `c` `[N, width]`."""
        pyro.module("prior", self.prior)
        pyro.module("likelihood", self.likelihood)
        with pyro.plate("data", len(x)):
            given = isinstance(self.prior, ConditionalGaussian)
            z = pyro.sample("z", self.prior(c) if given else self.prior())
            pyro.sample("x", self.likelihood(z, c), obs=x)

    def guide(self, x: Tensor, c: Tensor) -> None:
        """z ~ q(z | x, c)."""
        pyro.module("guide", self.q)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.q(x, c))
