"""Distributions and closed-form divergences that Pyro and torch lack; importing this registers the KLs."""

from . import kl as kl
from .counts import Counts as Counts
from .diagonal_gaussian_mixture import DiagonalGaussianMixture as DiagonalGaussianMixture
from .flow_distribution import FlowDistribution as FlowDistribution
from .mixture_of import mixture_of as mixture_of

__all__ = ["Counts", "DiagonalGaussianMixture", "FlowDistribution", "kl", "mixture_of"]
