"""Monotonic transforms of one latent, the elements of a flow guide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor

from pyrovae.distributions import import_zuko, rational_quadratic_spline

__all__ = ["Affine", "Spline", "Univariate"]

MIN_SLOPE = 1e-2


class Univariate(Protocol):
    """Turns `parameters` numbers a latent into a transform; zeros must give the identity."""

    @property
    def parameters(self) -> int:
        """Parameters a latent."""

    def __call__(self, raw: Tensor) -> Any:
        """Returns a zuko transform of `[..., D]` for parameters `[..., D, parameters]`."""


@dataclass(frozen=True)
class Affine:
    r"""The transform :math:`z \mapsto z e^a + b` with :math:`|a| < \ln 100`."""

    parameters: ClassVar[int] = 2

    def __call__(self, raw: Tensor) -> Any:
        """Returns a zuko transform of `[..., D]` for parameters `[..., D, 2]`."""
        shift, slope = raw.unbind(-1)
        return import_zuko("transforms").MonotonicAffineTransform(shift, slope, slope=MIN_SLOPE)


@dataclass(frozen=True)
class Spline:
    """A monotonic rational-quadratic spline on [-bound, bound], the identity outside.

    Args:
        bins: Number of bins.
        bound: Half the width of its domain, in units of z.

    Raises:
        ValueError: fewer than two bins, or a bound that is not positive.

    References:
        Neural Spline Flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032
    """

    bins: int = 8
    bound: float = 5.0

    def __post_init__(self) -> None:
        if self.bins < 2 or not self.bound > 0:
            raise ValueError(f"expected bins >= 2 and bound > 0, got {self.bins} and {self.bound}")

    @property
    def parameters(self) -> int:
        """Parameters a latent: widths, heights and inner slopes."""
        return 3 * self.bins - 1

    def __call__(self, raw: Tensor) -> Any:
        """Returns a zuko transform of `[..., D]` for parameters `[..., D, 3 * bins - 1]`."""
        widths, heights, slopes = raw.split([self.bins, self.bins, self.bins - 1], -1)
        return rational_quadratic_spline(widths, heights, slopes, bound=self.bound, slope=MIN_SLOPE)
