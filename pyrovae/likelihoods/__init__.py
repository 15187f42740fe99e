"""Likelihoods: modules whose call `likelihood(z, *context)` returns p(x|z), one batch element a latent."""

from .bernoulli import Bernoulli as Bernoulli
from .binomial import Binomial as Binomial
from .gaussian import Gaussian as Gaussian

__all__ = ["Bernoulli", "Binomial", "Gaussian"]
