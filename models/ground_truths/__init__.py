"""Programs whose evidence is known exactly: what every estimator is held against."""

from .conjugate import beta_binomial as beta_binomial
from .conjugate import gamma_poisson as gamma_poisson
from .gaussian import hierarchical_linear_gaussian as hierarchical_linear_gaussian
from .gaussian import linear_gaussian as linear_gaussian
from .hard import nonlinear as nonlinear
from .hard import psis_tail as psis_tail
from .summed import discrete as discrete
from .summed import mixture_prior as mixture_prior
from .truth import GroundTruth as GroundTruth


def ground_truths(num_data: int = 20, seed: int = 0) -> list[GroundTruth]:
    """One of each."""
    return [
        linear_gaussian(num_data, seed=seed),
        hierarchical_linear_gaussian(2, num_data, seed=seed),
        hierarchical_linear_gaussian(4, num_data, seed=seed),
        mixture_prior(num_data, seed=seed),
        discrete(num_data, seed=seed),
        gamma_poisson(num_data, seed=seed),
        beta_binomial(num_data, seed=seed),
        nonlinear(1, num_data, seed=seed),
        nonlinear(2, num_data, seed=seed),
        psis_tail(0.8, num_data, seed=seed),
    ]
