"""Whether a density is of x itself, or of numbers that the model makes of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..arguments.marks import tensors_in
from ..sites import is_factor, sample_sites
from .measure import is_computed, kind_of

LOOKED_AT = 10_000_000  # numbers of x, beyond which this is not asked
FEWEST = 10  # numbers of a column that say something


def transformed_sites(model_trace: Any, x: Tensor, context: tuple[Any, ...]) -> tuple[str, ...]:
    """Observed sites with a density of other numbers than those of x or its context: half of all, or nearly a column.

    A density of ln x, or of (x - mean) / scale, is that of x only with the Jacobian. Zeros may stand for what is
    missing, as NaN does, and say nothing.
    """
    given = [v for v in (x, *tensors_in(context)) if v.numel() and not v.is_complex()]
    if sum(v.numel() for v in given) > LOOKED_AT:
        return ()
    numbers = torch.cat([v.detach().reshape(-1).double() for v in given])
    found = []
    for name, site in sample_sites(model_trace):
        value = site["value"]
        if not site["is_observed"] or is_factor(site) or is_computed(site) or kind_of(site["fn"]) == "mass":
            continue
        if not isinstance(value, Tensor) or not value.is_floating_point():
            continue
        value = value.detach().double()
        if value.dim() and len(value) == len(x):
            value = value.reshape(len(value), -1)
        told = (value != 0) & ~value.isnan()
        same = told & torch.isin(value, numbers)
        half = same.sum() < 0.5 * told.sum()
        column = (same.sum(0) < 0.05 * told.sum(0)) & (told.sum(0) >= FEWEST)
        if bool(half) or (value.dim() > 1 and bool(column.any())):
            found.append(name)
    return tuple(found)
