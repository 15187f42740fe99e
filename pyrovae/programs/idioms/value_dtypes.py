"""Values in the dtype of their law."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor

# Discrete laws whose density is a function of the number, by lgamma; others look it up (Categorical), or compare it.
_COUNTS = (
    *(torch.distributions.Poisson, torch.distributions.Binomial, torch.distributions.NegativeBinomial),
    *(torch.distributions.Geometric, torch.distributions.Multinomial),
    *(dist.BetaBinomial, dist.GammaPoisson, dist.DirichletMultinomial),
)


def in_dtype_of(fn: Any, value: Any) -> Any:
    """Values in the dtype of the law that is asked for their density, where their own is narrower or of whole numbers.

    torch computes lgamma and the logarithm of whole numbers in float32 whatever the law's dtype (for counts of 10^6 off
    by more than a nat), those of float32 in float32 beside a law in float64, and value + 1 overflows in uint8.
    """
    if not isinstance(value, Tensor) or value.is_complex():
        return value
    dtype = next((t.dtype for t in _floats(fn)), torch.get_default_dtype())
    if value.is_floating_point():
        dtype = torch.promote_types(value.dtype, dtype)
        taken = value.dtype != dtype and _is_library(fn)
    else:
        taken = _is_library(fn) and _takes_floats(fn)
    return value.to(dtype) if taken else value


def _inner(fn: Any) -> list[Any]:
    """Laws that this one is made of."""
    names = ("base_dist", "component_distribution", "_component_distribution", "component0", "component1")
    return [law for n in names if isinstance(law := vars(fn).get(n), torch.distributions.Distribution)]


def _is_library(fn: Any) -> bool:
    """Whether its density is computed by torch, Pyro or pyrovae: a user's may look its value up in a table."""
    whose = str(getattr(type(fn).log_prob, "__module__", "")).partition(".")[0]
    return whose in ("torch", "pyro", "pyrovae") and all(map(_is_library, _inner(fn)))


def _takes_floats(fn: Any) -> bool:
    inner = _inner(fn)
    if inner:
        return all(map(_takes_floats, inner))
    if isinstance(fn, _COUNTS):
        return True
    if isinstance(fn, dist.Delta):
        return False
    try:
        return not fn.support.is_discrete
    except (NotImplementedError, AttributeError):
        return False


def _floats(fn: Any) -> Iterator[Tensor]:
    """Parameters that are no whole numbers, of this law and then of those that it is made of."""
    held = list(vars(fn).values())
    yield from (v for v in held if isinstance(v, Tensor) and v.is_floating_point())
    for law in held:
        if isinstance(law, torch.distributions.Distribution):
            yield from _floats(law)
