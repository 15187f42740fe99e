"""Values at which a law has no mass, whatever number its formula gives there."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import constraints

from ..devices import as_tensor
from .latents.supports import INDEPENDENT, MIXTURES, SAME, declares_its_last_transform, is_circular, parts

_LOWER = ("_GreaterThan", "_GreaterThanEq", "_IntegerGreaterThan")
_UPPER = ("_LessThan", "_IntegerLessThan")
_BOTH = ("_Interval", "_HalfOpenInterval", "_IntegerInterval")


def log_prob_within(fn: Any, value: Tensor, log_prob: Tensor) -> Tensor:
    """The log-density of a law, -inf at values outside of it.

    torch's formulas go on beyond the support: Exponential(1) gives e^2 at -2, Pareto(2, 3) a number below 2, and
    Gamma(1, 1) and Beta(1, 1) one everywhere. A program that runs without Pyro's validation counts them: draws of a
    guide that is wider than the prior, and observations below a bound that is a latent. A circular law (`VonMises`)
    has its unit of mass once, on [-pi, pi): summed over draws of a normal guide, say, it would count more than once.

    Args:
        fn: the law, with its wrappers.
        value: `[*batch, *event]`.
        log_prob: `fn.log_prob(value)`, batch-shaped.
    """
    if is_bounded(fn) and _holds_a_mixture(fn):
        return _by_parts(fn, value)
    beyond = outside(fn, value)
    return log_prob if beyond is None else torch.where(beyond, -torch.inf, log_prob)


def chosen(mixture: Any, of_law: Callable[[Any], Tensor | None]) -> Any:
    """Asks both laws of a `MaskedMixture`, and takes the answer of the second where masked; None stands for False."""
    first, second = of_law(mixture.component0), of_law(mixture.component1)
    if first is None and second is None:
        return None
    no = torch.zeros((), dtype=torch.bool, device=mixture.mask.device)
    return torch.where(mixture.mask, no if second is None else second, no if first is None else first)


def _by_parts(fn: Any, value: Tensor) -> Tensor:
    """The log-density of a law with a mixture in it, each of whose components has bounds of its own."""
    if isinstance(fn, dist.MaskedDistribution):
        return scale_and_mask(_by_parts(fn.base_dist, value), mask=fn._mask)
    if isinstance(fn, dist.MaskedMixture):
        density: Tensor = chosen(fn, lambda law: _by_parts(law, value))
        return density
    if isinstance(fn, SAME):
        return _by_parts(fn.base_dist, value)
    if isinstance(fn, INDEPENDENT):
        return _summed(_by_parts(fn.base_dist, value), fn.reinterpreted_batch_ndims)
    if isinstance(fn, MIXTURES):
        own = _by_parts(fn.component_distribution, _padded(fn, value))
        return (own + fn.mixture_distribution.logits.log_softmax(-1)).logsumexp(-1)
    if declares_its_last_transform(fn) and _holds_a_mixture(fn):
        beyond, at, dims = _outside_of_transforms(fn, value), value, len(fn.event_shape)
        total = value.new_zeros(())
        for part in reversed(fn.transforms):
            before = part.inv(at)
            dims += part.domain.event_dim - part.codomain.event_dim
            slope = part.log_abs_det_jacobian(before, at)
            total = total - _summed(slope, dims - part.domain.event_dim)
            at = before
        total = total + _summed(_by_parts(fn.base_dist, at), dims - len(fn.base_dist.event_shape))
        return total if beyond is None else torch.where(beyond, -torch.inf, total)
    beyond, found = outside(fn, value), fn.log_prob(value)
    return found if beyond is None else torch.where(beyond, -torch.inf, found)


def _holds_a_mixture(fn: Any) -> bool:
    while not isinstance(fn, (*MIXTURES, dist.MaskedMixture)):
        if not hasattr(fn, "base_dist"):
            return False
        fn = fn.base_dist
    return True


def outside(fn: Any, value: Tensor) -> Tensor | None:
    """Whether a law has no mass around a value, batch-shaped; None for laws on all real numbers.

    Looked at are the bounds of the support that a law declares. `TransformedDistribution` declares that of its last
    transform: those of the others, and of its base, are looked at, too. A value on a bound is left to the law, as is a
    value that is no number, and any in a set that has no bounds (a simplex, a sphere).
    """
    if isinstance(fn, dist.MaskedDistribution):
        beyond = outside(fn.base_dist, value)
        return None if beyond is None else beyond & as_tensor(fn._mask)
    if isinstance(fn, dist.MaskedMixture):
        beyond = chosen(fn, lambda law: outside(law, value))
        return beyond
    if isinstance(fn, SAME):
        return outside(fn.base_dist, value)
    if isinstance(fn, INDEPENDENT):
        beyond = outside(fn.base_dist, value)
        return None if beyond is None else _any(beyond, fn.reinterpreted_batch_ndims)
    if isinstance(fn, MIXTURES):
        beyond = outside(fn.component_distribution, _padded(fn, value))
        return None if beyond is None else beyond.all(-1)
    if declares_its_last_transform(fn):
        return _outside_of_transforms(fn, value)
    if is_circular(fn):
        # The draws' own rounding is no step over the edge.
        edge = math.pi * (1 + 4 * torch.finfo(value.dtype).eps)
        return _any(value.abs() > edge, len(fn.event_shape))
    beyond = beyond_bounds(_support(fn), value)
    return None if beyond is None else _any(beyond, len(fn.event_shape))


def is_bounded(fn: Any) -> bool:
    """Whether `outside` has bounds to look at."""
    if isinstance(fn, dist.MaskedMixture):
        return is_bounded(fn.component0) or is_bounded(fn.component1)
    if isinstance(fn, (*SAME, *INDEPENDENT)):
        return is_bounded(fn.base_dist)
    if isinstance(fn, MIXTURES):
        return is_bounded(fn.component_distribution)
    if declares_its_last_transform(fn):
        return is_bounded(fn.base_dist) or any(_has_bounds(_codomain(part)) for part in parts(fn.transforms))
    return is_circular(fn) or _has_bounds(_support(fn))


def may_leave_out(fn: Any) -> bool:
    """Whether a law may leave out observations that a look at its declared support takes.

    Bounds of more than one value (expanded ones have one), as one that depends on a latent, and those of a law below a
    transform.
    """
    if isinstance(fn, (*SAME, *INDEPENDENT)):
        return may_leave_out(fn.base_dist)
    # Angles of data may be of another period, as under a circular law without a transform.
    if declares_its_last_transform(fn) or isinstance(fn, (*MIXTURES, dist.MaskedMixture)):
        return is_bounded(fn) and not is_circular(fn)
    support = _support(fn)
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    ends = [getattr(support, name, None) for name in ("lower_bound", "upper_bound")]
    return any(
        isinstance(v, Tensor) and any(n > 1 and s for n, s in zip(v.shape, v.stride(), strict=True))
        for v in ends
    )


def _outside_of_transforms(fn: Any, value: Tensor) -> Tensor | None:
    """Undoes the transforms one by one, as far as one that is still to come has bounds."""
    steps = list(parts(fn.transforms))[::-1]
    bounded = [i for i, part in enumerate(steps) if _has_bounds(_codomain(part))]
    last = len(steps) if is_bounded(fn.base_dist) else max(bounded, default=-1)
    found, dims = [], len(fn.event_shape)
    for i, part in enumerate(steps[: last + 1]):
        beyond = beyond_bounds(_codomain(part), value)
        if beyond is not None:
            found.append(_any(beyond, dims))
        if i < last:
            value = part.inv(value)
            dims += part.domain.event_dim - part.codomain.event_dim
    beyond = outside(fn.base_dist, value) if last == len(steps) else None
    if beyond is not None:
        found.append(_any(beyond, dims - len(fn.base_dist.event_shape)))
    return functools.reduce(torch.logical_or, found) if found else None


def _codomain(part: Any) -> Any:
    """The codomain of a transform of torch or Pyro. What one of the user's own declares, nobody has checked."""
    if type(part).__name__ == "ELUTransform":  # declares positive numbers
        return constraints.greater_than(-1.0)
    return part.codomain if type(part).__module__.startswith(("torch.", "pyro.")) else None


def _support(fn: Any) -> Any:
    try:
        return fn.support
    except (NotImplementedError, AttributeError):
        return None


def _has_bounds(support: Any) -> bool:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    name = type(support).__name__
    return support is constraints.boolean or name in (*_LOWER, *_UPPER, *_BOTH, "_Multinomial")


def beyond_bounds(support: Any, value: Tensor, by: float = 0.0) -> Tensor | None:
    """Whether each number of `value` lies beyond a bound of the support, by more than `by`; None without bounds."""
    whole = support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    name = type(support).__name__
    if support is constraints.boolean:
        return (value != 0) & (value != 1)
    if name in _LOWER:
        return value < support.lower_bound - by
    if name in _UPPER:
        return value > support.upper_bound + by
    if name in _BOTH:
        return (value < support.lower_bound - by) | (value > support.upper_bound + by)
    if name == "_Multinomial":
        return ~whole.check(value).unsqueeze(-1)
    return None


def _padded(fn: Any, value: Tensor) -> Tensor:
    """A value beside each component of a mixture."""
    return value.unsqueeze(value.dim() - len(fn.event_shape))


def _summed(value: Tensor, dims: int) -> Tensor:
    return value.flatten(value.dim() - dims).sum(-1) if dims > 0 else value


def _any(value: Tensor, dims: int) -> Tensor:
    return value.flatten(value.dim() - dims).any(-1) if dims > 0 else value
