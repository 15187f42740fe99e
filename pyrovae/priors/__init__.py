"""Priors: modules whose call returns a Distribution, `batch_shape` (), `event_shape` (latent_dim,)."""

from .conditional_gaussian import ConditionalGaussian as ConditionalGaussian
from .diagonal_gaussian import DiagonalGaussian as DiagonalGaussian
from .flow import FlowPrior as FlowPrior
from .gaussian_mixture import GaussianMixture as GaussianMixture
from .standard_normal import StandardNormal as StandardNormal
from .vamp import VampPrior as VampPrior

__all__ = [
    "ConditionalGaussian",
    "DiagonalGaussian",
    "FlowPrior",
    "GaussianMixture",
    "StandardNormal",
    "VampPrior",
]
