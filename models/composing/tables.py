"""Parts built for prepared data, made to take the data themselves: in their own units, some values missing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyrovae import guides, likelihoods
from pyrovae.data import Column, Dataset, Standardization, fill_of
from pyrovae.data.tables.columns import features
from pyrovae.networks import TableInputs

__all__ = ["LevelsOfStandardized", "as_given", "likelihood_as_given", "mixed", "table_inputs"]


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
    """First layer of an encoder for rows with missing values; None for others."""
    missing, table = data.spec.missing is not None, data.spec.table
    if data.spec.support == "mixed" and table is not None:
        own = features(table)
        return TableInputs([c.categories for c in own], [c.role == "count" for c in own], missing)
    return TableInputs([0] * math.prod(data.spec.event_shape), missing=True) if missing else None


def mixed(make_net: Callable[[int], nn.Module], data: Dataset) -> likelihoods.Mixed:
    """A likelihood for a table of several kinds of columns, by their roles, for prepared data.

    Real columns have normal laws, positive ones log-normal laws (of a standardised logarithm, normal ones), counts
    negative binomial laws, bits Bernoulli laws, each category and each ordinal column one of its own.

    Args:
        make_net: A function from the number of outputs for each column to a decoder.
        data: The table.

    Raises:
        ValueError: data without roles of columns.
    """
    if data.spec.table is None:
        raise ValueError("expected a table with roles of columns, got none; try load(..., columns='auto')")
    own, units = features(data.spec.table), data.spec.standardization
    places: dict[str, list[int]] = {}
    for i, c in enumerate(own):
        name = f"{c.role} {c.name!r}" if c.categories else c.role
        if c.role == "positive" and units is not None:
            name = "positive (logarithm)"
        places.setdefault(name, []).append(i)
    groups = {name: _group(own[at[0]], tuple(at), units is not None) for name, at in places.items()}
    each = -(-likelihoods.Mixed.width(groups) // len(own))
    return likelihoods.Mixed(make_net(each), groups)


def _group(column: Column, at: tuple[int, ...], standardised: bool) -> likelihoods.Group:
    n, size = (len(at),), column.categories
    if column.role == "category":
        return likelihoods.Group(lambda net: likelihoods.Categorical(net, size), at, size, names=True)
    if column.role == "ordinal":
        return likelihoods.Group(lambda net: likelihoods.Ordinal(net, size), at, names=True)
    if column.role == "binary":
        return likelihoods.Group(lambda net: likelihoods.Bernoulli(net), at)
    if column.role == "count":
        return likelihoods.Group(lambda net: likelihoods.NegativeBinomial(net, torch.ones(n)), at)
    if column.role == "positive" and not standardised:
        return likelihoods.Group(lambda net: likelihoods.LogNormal(net), at, 2)
    return likelihoods.Group(lambda net: likelihoods.Gaussian(net, torch.ones(n), learn_scale=True), at)


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
