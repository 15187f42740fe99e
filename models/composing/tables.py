"""Parts built for prepared data, made to take the data themselves: in their own units, some values missing."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from pyrovae import guides, likelihoods
from pyrovae.data import Dataset, Standardization, fill_of
from pyrovae.networks import TableInputs

__all__ = ["LevelsOfStandardized", "as_given", "likelihood_as_given", "table_inputs"]


def as_given(likelihood: nn.Module, guide: nn.Module, data: Dataset) -> tuple[nn.Module, nn.Module]:
    """Likelihood and guide of `data`, from those of `pyrovae.data.prepared(data)`."""
    units = data.spec.standardization
    if units is not None and not data.is_prepared:
        guide = guides.Standardized(guide, units)
    return likelihood_as_given(likelihood, data), guide


def likelihood_as_given(likelihood: nn.Module, data: Dataset) -> nn.Module:
    """The likelihood alone."""
    if data.is_prepared:
        return likelihood
    if data.spec.standardization is not None:
        likelihood = likelihoods.Standardized(likelihood, data.spec.standardization)
    if data.spec.missing is not None:
        likelihood = likelihoods.PartiallyObserved(likelihood, fill_of(data).cpu())
    return likelihood


def table_inputs(data: Dataset) -> TableInputs | None:
    """What an encoder puts first, for rows with missing values; None for others."""
    if data.spec.missing is None:
        return None
    return TableInputs([0] * math.prod(data.spec.event_shape), missing=True)


class LevelsOfStandardized(nn.Module):
    """A guide of several levels that sees standardised data.

    Args:
        guide: of `pyrovae.models.levels.guides`.
        units: The map to standardised data.
    """

    def __init__(self, guide: Any, units: Standardization) -> None:
        super().__init__()
        self.inputs = guides.Standardized(nn.Identity(), units)
        self.guide = guide

    @property
    def num_levels(self) -> int:
        """Number of levels."""
        return int(self.guide.num_levels)

    @property
    def shares_path(self) -> bool:
        """Whether the guide runs the model's path."""
        return bool(self.guide.shares_path)

    @property
    def top(self) -> Any:
        """q(z_T | t), of standardised data."""
        return self.guide.top

    def forward(self, path: Any, draw: Any, x: Tensor, *context: Tensor) -> Any:
        """Draws all levels."""
        return self.guide(path, draw, self.inputs(x), *context)
