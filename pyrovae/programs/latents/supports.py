"""The set on which a law has its mass, and the map from unconstrained numbers onto it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch.distributions import biject_to, constraints
from torch.distributions import transforms as t

from ...devices import as_tensor

# Periodic densities, normalised over one period, that declare the whole real line. Their draws lie in [-pi, pi).
CIRCULAR = (torch.distributions.VonMises, dist.SineBivariateVonMises, dist.SineSkewed)
# Their draws are rounded, their densities are those of the numbers before rounding.
ROUNDED = (dist.RelaxedBernoulliStraightThrough, dist.RelaxedOneHotCategoricalStraightThrough)
# Wrappers: around a law on the same numbers, on several of them, and on one of several laws.
SAME = (dist.MaskedDistribution, ExpandedDistribution)
INDEPENDENT = (dist.Independent, torch.distributions.Independent)
MIXTURES = (dist.MixtureSameFamily, torch.distributions.MixtureSameFamily)


def base_of(fn: Any) -> Any:
    """The distribution inside Independent, Expanded and Masked wrappers."""
    while hasattr(fn, "base_dist"):
        if isinstance(fn, torch.distributions.TransformedDistribution):
            break
        fn = fn.base_dist
    return fn


def bijection(fn: Any) -> t.Transform:
    """The map from unconstrained numbers onto the set where a law has its mass.

    `biject_to(fn.support)`, except where the support that a law declares is not where its mass is: a circular law
    (`VonMises`, `SineBivariateVonMises`, `SineSkewed`, and what is made of them) has it on one period, [-pi, pi),
    where its draws lie; a transformed law declares the support of its last transform (a shifted exponential: all real
    numbers); a law with an infinite upper bound has no interval.

    Raises:
        NotImplementedError: for a support that no map from the reals is known for, as a sphere; for a law whose draws
            are rounded. Says what to try.
    """
    if isinstance(fn, SAME):
        return bijection(fn.base_dist)
    if isinstance(fn, INDEPENDENT) and is_circular(fn):
        return t.IndependentTransform(bijection(fn.base_dist), fn.reinterpreted_batch_ndims)
    if is_transformed(fn) and (is_circular(fn) or _hides_bounds(fn)):
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


def is_transformed(fn: Any) -> bool:
    """Whether a law is another one pushed through transforms."""
    own = isinstance(fn, (*ROUNDED, *CIRCULAR))
    return isinstance(fn, torch.distributions.TransformedDistribution) and not own


def declares_its_last_transform(fn: Any) -> bool:
    """Whether a law is another one pushed through transforms, and its support the codomain of the last."""
    return is_transformed(fn) and type(fn).support is torch.distributions.TransformedDistribution.support


def parts(transforms: Any) -> Iterator[t.Transform]:
    """Transforms one by one, composed ones taken apart."""
    for part in transforms:
        if isinstance(part, t.ComposeTransform):
            yield from parts(part.parts)
        else:
            yield part


def _hides_bounds(fn: Any) -> bool:
    """Whether a law declares all real numbers, and what is below its last transform has bounds."""
    if isinstance(fn, (*SAME, *INDEPENDENT)):
        return _hides_bounds(fn.base_dist)
    if not declares_its_last_transform(fn) or not is_real(fn.support):
        return False
    if not all(is_real(part.codomain) for part in parts(fn.transforms)):
        return True
    return not is_real(getattr(fn.base_dist, "support", constraints.real)) or _hides_bounds(fn.base_dist)


def is_real(support: Any) -> bool:
    """Whether a support is all real numbers, or vectors of them."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support is constraints.real


def _words(support: Any) -> str:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    text = repr(support).removesuffix("()")
    return {"_Sphere": "a sphere"}.get(
        type(support).__name__, text if len(text) < 80 else type(support).__name__
    )
