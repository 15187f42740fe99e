"""Priors: modules whose call returns a Distribution, `batch_shape` (), `event_shape` (latent_dim,)."""

from .gaussian_mixture import GaussianMixture as GaussianMixture
from .standard_normal import StandardNormal as StandardNormal
from .vamp import VampPrior as VampPrior

__all__ = ["GaussianMixture", "StandardNormal", "VampPrior"]
