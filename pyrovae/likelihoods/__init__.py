"""Likelihoods: modules whose call `likelihood(z, *context)` returns p(x|z), one batch element a latent."""

from .bernoulli import Bernoulli as Bernoulli
from .binomial import Binomial as Binomial
from .categorical import Categorical as Categorical
from .continuous_bernoulli import ContinuousBernoulli as ContinuousBernoulli
from .discretized_logistic import DiscretizedLogistic as DiscretizedLogistic
from .discretized_logistic_mixture import DiscretizedLogisticMixture as DiscretizedLogisticMixture
from .gaussian import Gaussian as Gaussian
from .heteroscedastic_gaussian import HeteroscedasticGaussian as HeteroscedasticGaussian

__all__ = [
    "Bernoulli",
    "Binomial",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Gaussian",
    "HeteroscedasticGaussian",
]
