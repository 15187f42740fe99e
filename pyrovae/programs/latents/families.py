"""A distribution taken apart into free parameters, and put together again."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints, transform_to
from torch.distributions import transforms as t

# Where a class can be made of several sets of parameters.
_CHOSEN: dict[type, tuple[str, ...]] = {torch.distributions.MultivariateNormal: ("loc", "scale_tril")}
_FIXED = (t.ExpTransform, t.SigmoidTransform, t.TanhTransform, t.SoftplusTransform, t.StickBreakingTransform)


def free_parameters(fn: Any, site: str) -> dict[str, Tensor]:
    """The distribution's own parameters in unconstrained space, by name, `[*batch, *parameter event]`.

    Raises:
        ValueError: naming the family, where its parameters are not known, its draws have no pathwise
            gradient, or it is discrete.
    """
    values: dict[str, Tensor] = {}
    if not fn.has_rsample:
        raise _refusal(fn, site, "draws without pathwise gradients")

    def read(name: str, value: Tensor) -> Tensor:
        values[name] = value
        return value

    again = _moved(fn, read, site)
    if not all(bool(torch.isfinite(v).all()) for v in values.values()):
        raise _refusal(fn, site, "parameters on the edge of their domain")
    draw = fn.sample()
    # What a family does with its parameters is not known from their names: the densities say it.
    if not torch.allclose(fn.log_prob(draw), again.log_prob(draw), rtol=1e-3, atol=1e-3, equal_nan=True):
        raise _refusal(fn, site, "parameters that do not make up its density")
    return values


def moved(fn: Any, offsets: Mapping[str, Tensor]) -> Any:
    """The distribution with each parameter moved by an offset in unconstrained space."""
    return _moved(fn, lambda name, value: value + offsets[name], "")


def _moved(fn: Any, change: Callable[[str, Tensor], Tensor], site: str) -> Any:
    if isinstance(fn, dist.Independent | torch.distributions.Independent):
        return dist.Independent(_moved(fn.base_dist, change, site), fn.reinterpreted_batch_ndims)
    if isinstance(fn, dist.MaskedDistribution):
        return dist.MaskedDistribution(_moved(fn.base_dist, change, site), fn._mask)
    if type(fn) in (dist.TransformedDistribution, torch.distributions.TransformedDistribution):
        if not all(_is_fixed(part) for part in fn.transforms):
            names = [type(part).__name__ for part in fn.transforms]
            raise _refusal(fn, site, f"transforms {names}, whose parameters are shared by all data")
        return dist.TransformedDistribution(_moved(fn.base_dist, change, site), list(fn.transforms))
    parameters, takes = _names(fn, site)
    given: dict[str, Any] = {}
    for name in parameters:
        constraint = fn.arg_constraints[name]
        bijection = transform_to(constraint)
        value = getattr(fn, name)
        event = value.shape[value.dim() - constraint.event_dim :]
        value = value.expand(
            torch.broadcast_shapes(fn.batch_shape, value.shape[: value.dim() - len(event)]) + event
        )
        given[name] = bijection(change(name, bijection.inv(value)))
    return type(fn)(**given, **({"validate_args": False} if takes else {}))


def _names(fn: Any, site: str) -> tuple[tuple[str, ...], bool]:
    """Names of a family's parameters, and whether it takes `validate_args`."""
    signature = inspect.signature(type(fn).__init__).parameters
    own = getattr(fn, "arg_constraints", {})
    names = next((n for cls, n in _CHOSEN.items() if isinstance(fn, cls)), None)
    if names is None:
        names = tuple([n for n in signature if n in own])
        needed = {
            n for n, p in signature.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
        } - {"self"}
        if not names or not needed <= set(names):
            raise _refusal(fn, site, "parameters that are not known")
    if isinstance(inspect.getattr_static(type(fn), "support", None), constraints._DependentProperty):
        raise _refusal(fn, site, "a support that moves with its parameters")
    if any(constraints.is_dependent(own[n]) for n in names):
        raise _refusal(fn, site, "parameters that are bound to each other")
    return names, "validate_args" in signature


def _is_fixed(part: Any) -> bool:
    if isinstance(part, t.ComposeTransform):
        return all(_is_fixed(p) for p in part.parts)
    if isinstance(part, t.AffineTransform):
        return not any(isinstance(v, Tensor) and v.dim() for v in (part.loc, part.scale))
    return isinstance(part, _FIXED)


def _refusal(fn: Any, site: str, why: str) -> ValueError:
    while isinstance(fn, dist.Independent | torch.distributions.Independent | dist.MaskedDistribution):
        fn = fn.base_dist
    return ValueError(
        f"expected a guide whose families have parameters of their own for each datum, got {type(fn).__name__} at "
        f"{site!r} with {why}; try a Gaussian guide (diagonal, low-rank or full)"
    )
