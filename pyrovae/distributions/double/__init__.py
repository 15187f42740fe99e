"""Laws of torch and Pyro whose log-probabilities are worked out in float64, from parameters and values of any dtype.

Their terms are large and cancel: of a count of a million, float32 leaves about one nat of ln p.
"""

from .beta import Beta as Beta
from .gamma import Gamma as Gamma
from .log_normal import LogNormal as LogNormal
from .negative_binomial import NegativeBinomial as NegativeBinomial
from .poisson import Poisson as Poisson
from .student_t import StudentT as StudentT
from .zero_inflated import ZeroInflatedNegativeBinomial as ZeroInflatedNegativeBinomial

__all__ = [
    "Beta",
    "Gamma",
    "LogNormal",
    "NegativeBinomial",
    "Poisson",
    "StudentT",
    "ZeroInflatedNegativeBinomial",
]
