"""The set on which a law has its mass, and the map from unconstrained numbers onto it."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor
from torch.distributions import biject_to, constraints
from torch.distributions import transforms as t

from ...devices import as_tensor

# Periodic densities, normalised over one period, that declare the whole real line. Their draws lie in [-pi, pi).
CIRCULAR = (torch.distributions.VonMises, dist.SineBivariateVonMises, dist.SineSkewed)
# Their draws are rounded, their densities are those of the numbers before rounding.
ROUNDED = (dist.RelaxedBernoulliStraightThrough, dist.RelaxedOneHotCategoricalStraightThrough)
_INDEPENDENT = (dist.Independent, torch.distributions.Independent)
_SAME = (dist.MaskedDistribution, ExpandedDistribution)


def bijection(fn: Any) -> t.Transform:
    """The map from unconstrained numbers onto the set where a law has its mass.

    `biject_to(fn.support)`, except where the support that a law declares is not where its mass is: a circular law
    (`VonMises`, `SineBivariateVonMises`, `SineSkewed`, and what is made of them) has it on one period, [-pi, pi),
    where its draws lie; a law with an infinite upper bound has no interval.

    Raises:
        NotImplementedError: for a support that no map from the reals is known for, as a sphere; for a law whose draws
            are rounded. Says what to try.
    """
    if isinstance(fn, _SAME):
        return bijection(fn.base_dist)
    if isinstance(fn, _INDEPENDENT) and is_circular(fn):
        return t.IndependentTransform(bijection(fn.base_dist), fn.reinterpreted_batch_ndims)
    if _is_transformed(fn) and is_circular(fn):
        return t.ComposeTransform([bijection(fn.base_dist), *fn.transforms])
    if isinstance(_innermost(fn), ROUNDED):
        raise NotImplementedError(
            f"{type(_innermost(fn)).__name__}, whose draws are rounded, so that no density of theirs can be moved in"
        )
    support = fn.support
    if isinstance(support, constraints.MixtureSameFamilyConstraint):
        support = support.base_constraint
    if is_circular(fn):
        support = constraints.interval(-math.pi, math.pi)
        for _ in range(len(fn.event_shape)):
            support = constraints.independent(support, 1)
    upper = getattr(support, "upper_bound", None)
    # Of this law alone: a look at the bound's values would keep others from being one graph.
    endless = type(_innermost(fn)).__name__ == "GeneralizedPareto" and upper is not None
    if endless and bool(as_tensor(upper == math.inf).all()):
        support = constraints.greater_than_eq(support.lower_bound)
    try:
        return biject_to(support)
    except NotImplementedError:
        raise NotImplementedError(
            f"{type(_innermost(fn)).__name__} on {_words(support)}, which no map from the real numbers is known for"
        ) from None


def is_circular(fn: Any) -> bool:
    """Whether a law is periodic, or made of laws that are."""
    return isinstance(_innermost(fn), CIRCULAR)


def one_period(fn: Any, value: Tensor, log_prob: Tensor) -> Tensor:
    """The log-density of a LATENT with what lies beyond a circular law's own period at -inf; other laws' as it is.

    A periodic density has one unit of mass in every period: summed over draws of a normal guide, say, it would count
    more than once, and exp(ln w) would average to more than p(x).
    """
    if not is_circular(fn):
        return log_prob
    return torch.where(_beyond(fn, value), -torch.inf, log_prob)


def within_moving_bounds(fn: Any, value: Tensor, log_prob: Tensor) -> Tensor:
    """The log-density of an OBSERVATION, -inf where bounds that depend on latents leave its value out.

    Uniform(0, z) at x > z, Binomial(z, p) at x > z: laws without validation may return any number there.
    """
    try:
        support = fn.support
    except (NotImplementedError, AttributeError):
        return log_prob
    if not _moves(support):
        return log_prob
    return torch.where(support.check(value), log_prob, -torch.inf)


def _moves(support: Any) -> bool:
    """Whether a support has bounds of more than one value (expanded ones have one)."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    ends = [getattr(support, name, None) for name in ("lower_bound", "upper_bound")]
    return any(
        isinstance(v, Tensor) and any(n > 1 and s for n, s in zip(v.shape, v.stride(), strict=True))
        for v in ends
    )


def _beyond(fn: Any, value: Tensor) -> Tensor:
    """Batch-shaped: whether a value lies outside of the one period that draws lie in."""
    if isinstance(fn, dist.MaskedDistribution):
        return _beyond(fn.base_dist, value) & as_tensor(fn._mask)
    if isinstance(fn, _SAME):
        return _beyond(fn.base_dist, value)
    if isinstance(fn, _INDEPENDENT):
        return _any(_beyond(fn.base_dist, value), fn.reinterpreted_batch_ndims)
    if _is_transformed(fn):
        for part in reversed(fn.transforms):
            value = part.inv(value)
        beyond = _beyond(fn.base_dist, value)
        return _any(beyond, beyond.dim() - (value.dim() - len(fn.event_shape)))
    # The draws' own rounding is no step over the edge.
    edge = math.pi * (1 + 4 * torch.finfo(value.dtype).eps)
    return _any(value.abs() > edge, len(fn.event_shape))


def _any(value: Tensor, dims: int) -> Tensor:
    return value.flatten(value.dim() - dims).any(-1) if dims > 0 else value


def _innermost(fn: Any) -> Any:
    """The law inside of wrappers, transforms and (of equal families) mixtures."""
    while True:
        if isinstance(fn, torch.distributions.MixtureSameFamily):
            fn = fn.component_distribution
        elif hasattr(fn, "base_dist"):
            # These too have a base of their own, from which their draws are rounded or skewed.
            if isinstance(fn, (*ROUNDED, *CIRCULAR)):
                return fn
            fn = fn.base_dist
        else:
            return fn


def _is_transformed(fn: Any) -> bool:
    own = isinstance(fn, (*ROUNDED, *CIRCULAR))
    return isinstance(fn, torch.distributions.TransformedDistribution) and not own


def _words(support: Any) -> str:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    text = repr(support).removesuffix("()")
    return {"_Sphere": "a sphere"}.get(
        type(support).__name__, text if len(text) < 80 else type(support).__name__
    )
