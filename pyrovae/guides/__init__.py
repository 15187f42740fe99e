"""Guides: modules whose call `guide(x, *context)` returns q(z|x), one batch element a datum."""

from .diagonal_gaussian import DiagonalGaussian as DiagonalGaussian
from .flow import FlowGuide as FlowGuide
from .full_gaussian import FullGaussian as FullGaussian
from .low_rank_gaussian import LowRankGaussian as LowRankGaussian
from .mixture import MixtureGuide as MixtureGuide
from .standardized import Standardized as Standardized
from .univariate import Affine as Affine
from .univariate import Spline as Spline

__all__ = [
    "Affine",
    "DiagonalGaussian",
    "FlowGuide",
    "FullGaussian",
    "LowRankGaussian",
    "MixtureGuide",
    "Spline",
    "Standardized",
]
