"""Distributions that Pyro and torch lack."""

from .continuous_bernoulli import ContinuousBernoulli as ContinuousBernoulli
from .counts import Counts as Counts
from .diagonal_gaussian_mixture import DiagonalGaussianMixture as DiagonalGaussianMixture
from .discretized_logistic import DiscretizedLogistic as DiscretizedLogistic
from .double import Beta as Beta
from .double import Gamma as Gamma
from .double import LogNormal as LogNormal
from .double import NegativeBinomial as NegativeBinomial
from .double import Poisson as Poisson
from .double import StudentT as StudentT
from .double import ZeroInflatedNegativeBinomial as ZeroInflatedNegativeBinomial
from .fast_spline import rational_quadratic_spline as rational_quadratic_spline
from .flow_distribution import FlowDistribution as FlowDistribution
from .gaussian_chain import GaussianChain as GaussianChain
from .lazy_zuko import import_zuko as import_zuko
from .levels import Levels as Levels
from .mixture_of import mixture_of as mixture_of
from .pathwise_mixture import PathwiseMixture as PathwiseMixture
from .tables import Joined as Joined
from .tables import PartiallyObserved as PartiallyObserved
from .tables import Standardized as Standardized

__all__ = [
    "Beta",
    "ContinuousBernoulli",
    "Counts",
    "DiagonalGaussianMixture",
    "DiscretizedLogistic",
    "FlowDistribution",
    "Gamma",
    "GaussianChain",
    "Joined",
    "Levels",
    "LogNormal",
    "NegativeBinomial",
    "PartiallyObserved",
    "PathwiseMixture",
    "Poisson",
    "Standardized",
    "StudentT",
    "ZeroInflatedNegativeBinomial",
    "import_zuko",
    "mixture_of",
    "rational_quadratic_spline",
]
