"""Guides: modules whose call `guide(x, *context)` returns q(z|x), one batch element a datum."""

from .diagonal_gaussian import DiagonalGaussian as DiagonalGaussian
from .flow import FlowGuide as FlowGuide
from .full_gaussian import FullGaussian as FullGaussian

__all__ = ["DiagonalGaussian", "FlowGuide", "FullGaussian"]
