"""Likelihoods: modules whose call `likelihood(z, *context)` returns p(x|z), one batch element a latent."""

from .bernoulli import Bernoulli as Bernoulli
from .beta import Beta as Beta
from .binomial import Binomial as Binomial
from .categorical import Categorical as Categorical
from .continuous_bernoulli import ContinuousBernoulli as ContinuousBernoulli
from .counting.negative_binomial import NegativeBinomial as NegativeBinomial
from .counting.poisson import Poisson as Poisson
from .counting.zero_inflated_negative_binomial import (
    ZeroInflatedNegativeBinomial as ZeroInflatedNegativeBinomial,
)
from .discretized_logistic import DiscretizedLogistic as DiscretizedLogistic
from .discretized_logistic_mixture import DiscretizedLogisticMixture as DiscretizedLogisticMixture
from .gamma import Gamma as Gamma
from .gaussian import Gaussian as Gaussian
from .heteroscedastic_gaussian import HeteroscedasticGaussian as HeteroscedasticGaussian
from .log_normal import LogNormal as LogNormal
from .ordinal import Ordinal as Ordinal
from .student_t import StudentT as StudentT
from .tables.mixed import Group as Group
from .tables.mixed import Mixed as Mixed
from .tables.partially_observed import PartiallyObserved as PartiallyObserved
from .tables.standardized import Standardized as Standardized

__all__ = [
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "DiscretizedLogisticMixture",
    "Gamma",
    "Gaussian",
    "Group",
    "HeteroscedasticGaussian",
    "LogNormal",
    "Mixed",
    "NegativeBinomial",
    "Ordinal",
    "PartiallyObserved",
    "Poisson",
    "Standardized",
    "StudentT",
    "ZeroInflatedNegativeBinomial",
]
