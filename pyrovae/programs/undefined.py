"""Parameters for which a law is no law, whatever number its formula gives."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, overload

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import lazy_property

from ..devices import as_tensor
from .latents.supports import INDEPENDENT, MIXTURES, SAME, base_of
from .outside import beyond_bounds, chosen

# Beyond a bound by so little a parameter is rounded, not wrong.
ROUNDING = 1e-5
_TRANSFORMED = torch.distributions.TransformedDistribution
# The logarithm of their scale is no number where it is negative: that shows by itself.
_SHOW = (torch.distributions.Normal, torch.distributions.Laplace, torch.distributions.Cauchy)


def undefined(fn: Any, every: bool = False) -> Tensor | None:
    """Whether a law's parameters lie beyond their bounds, batch-shaped; None where they cannot.

    Laws whose density is no number then are looked at with `every`.

    Pyro's validation raises there. Without it Gamma(-1/2, 1), Bernoulli(1.2), Beta(-1, 2) and Categorical((1.2, -.2))
    have finite "densities". A law that the program made with `validate_args=False` is left alone, as Pyro leaves it.
    """
    if isinstance(fn, dist.MaskedDistribution):
        found = undefined(fn.base_dist, every)
        return None if found is None else found & as_tensor(fn._mask)
    if isinstance(fn, dist.MaskedMixture):
        found = chosen(fn, lambda law: undefined(law, every))
        return found
    if isinstance(fn, SAME):
        return undefined(fn.base_dist, every)
    if isinstance(fn, INDEPENDENT):
        return _reduced(undefined(fn.base_dist, every), fn.reinterpreted_batch_ndims)
    if isinstance(fn, MIXTURES):
        return _either(
            _reduced(undefined(fn.component_distribution, every), 1),
            undefined(fn.mixture_distribution, every),
        )
    if isinstance(fn, _TRANSFORMED):
        return _reduced(undefined(fn.base_dist, every), len(fn.event_shape) - len(fn.base_dist.event_shape))
    if fn.__dict__.get("_validate_args") is False or (isinstance(fn, _SHOW) and not every):
        return None
    found = None
    for name, constraint in _constraints(fn).items():
        if name not in fn.__dict__ and isinstance(getattr(type(fn), name, None), lazy_property):
            continue  # made of one that was given
        value = getattr(fn, name, None)
        beyond = _beyond(constraint, value) if isinstance(value, Tensor) else None
        if beyond is not None:
            found = _either(found, _by_element(beyond, fn.batch_shape))
    return found


def undefined_in(sites: Iterable[tuple[str, Any]]) -> list[str]:
    """Those of `(name, site)` with such parameters, in words."""
    found = []
    for name, site in sites:
        wrong = undefined(site["fn"], every=True)
        if wrong is not None and bool(wrong.any()):
            found.append(f"{type(base_of(site['fn'])).__name__} of {name!r}")
    return found


def _constraints(fn: Any) -> dict[str, Any]:
    try:
        return dict(fn.arg_constraints)
    except (NotImplementedError, AttributeError):
        return {}


def _beyond(constraint: Any, value: Tensor) -> Tensor | None:
    if constraint is constraints.simplex:
        return (value < -ROUNDING).any(-1)
    return beyond_bounds(constraint, value, ROUNDING)


def _by_element(beyond: Tensor, batch: torch.Size) -> Tensor:
    """Reduces to the batch; to one answer for all of it where a law's parameters have a shape of their own."""
    found = _reduced(beyond, beyond.dim() - len(batch))
    try:
        fits = torch.broadcast_shapes(found.shape, batch) == batch
    except RuntimeError:
        fits = False
    return found if fits else beyond.any()


def _either(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a | b


@overload
def _reduced(value: Tensor, dims: int) -> Tensor: ...
@overload
def _reduced(value: None, dims: int) -> None: ...
def _reduced(value: Tensor | None, dims: int) -> Tensor | None:
    return value.flatten(value.dim() - dims).any(-1) if value is not None and dims > 0 else value
