"""Signs of an infinite KL that draws may not show: density beyond a support, tails too heavy for a mean."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints

from ..programs.latents.supports import is_circular

# How far beyond a bound is looked, relative to 1 + |bound|.
OFFSETS = (1e-4, 1e-2, 0.1, 1.0, 10.0)


def reaches_beyond(p: Any, q: Any, device: torch.device) -> Tensor | None:
    """Whether p has positive density beyond the bounds of q's support, batch-shaped; None where that is not known.

    p is evaluated there: the support that it declares may be wider than its own. Laws of real numbers and products
    of them (Independent) are compared; a positive density at one point outside is taken for that of a neighbourhood.
    Both lie on `device`.
    """
    factors = _factors(p, q)
    if factors is None:
        return None
    p, q, dims = factors
    try:
        own, bounds = p.support, _bounds(q.support)
        if bounds is None or own is None or own.is_discrete or q.support.is_discrete:
            return None
        shape = torch.broadcast_shapes(p.batch_shape, q.batch_shape)
        found = torch.zeros(shape, dtype=torch.bool, device=device)
        for bound, side in zip(bounds, (-1, 1), strict=True):
            edge = torch.as_tensor(bound, device=device).detach()
            edge = (edge if edge.is_floating_point() else edge.to(torch.get_default_dtype())).expand(shape)
            for offset in OFFSETS:
                x = edge + side * offset * (1 + edge.abs())
                usable = torch.isfinite(x) & own.check(x)
                if not bool(usable.any()):
                    continue
                # What p may not be asked about is replaced by a draw of its own.
                try:
                    log_p = p.expand(shape).log_prob(torch.where(usable, x, p.expand(shape).sample()))
                except ValueError:  # outside of what p is made of, whatever support it declares
                    continue
                found = found | (usable & torch.isfinite(log_p))
    except (NotImplementedError, AttributeError):
        return None
    return found.flatten(found.dim() - dims).any(-1) if dims else found


def diverges(p: Any, q: Any, device: torch.device) -> Tensor | None:
    """Whether E_p |ln p/q| has a tail without an integral, batch-shaped; None where that is not known.

    Of scalar laws: with y the distance to 0 or to a bound of p's support, the integral of p |ln p/q| dy converges at
    y -> infinity (y -> 0) where ln(p |ln p/q| y) falls with ln y (rises), which is looked at over four decades.
    Cauchy to logistic: y^-2 y y is level. Logarithms alone (slopes below 0.02) count as level. Both laws lie on
    `device`.
    """
    factors = _factors(p, q)
    if factors is None:
        return None
    p, q, dims = factors
    try:
        own = p.support
        if own is None or own.is_discrete or q.support.is_discrete:
            return None
        shape = torch.broadcast_shapes(p.batch_shape, q.batch_shape)
        p, q = p.expand(shape), q.expand(shape)
        out = torch.zeros(shape, dtype=torch.bool, device=device)
        low, high = (
            torch.as_tensor(b, dtype=torch.float64, device=device).expand(shape)
            for b in _bounds(own) or (-math.inf, math.inf)
        )
        for edge, side, far in ((low, 1, -1), (high, -1, 1)):
            finite = torch.isfinite(edge)
            rows = []
            for exponent in (4, 6, 8):
                y = torch.where(finite, 10.0**-exponent, 10.0**exponent)
                x = torch.where(finite, edge + side * y, far * y)
                ratio = (p.log_prob(x).double() - q.log_prob(x).double()).abs()
                rows.append(p.log_prob(x).double() + ratio.log() + y.log())
            # What is below the smallest density has no tail; both pairs of decades have to agree.
            steps = torch.stack(rows).diff(dim=0) / math.log(100)
            level = (steps >= -0.02).all(0) & torch.isfinite(torch.stack(rows)).all(0)
            out = out | level
    except (NotImplementedError, AttributeError, ValueError):
        return None
    return out.flatten(out.dim() - dims).any(-1) if dims else out


def _factors(p: Any, q: Any) -> tuple[Any, Any, int] | None:
    """Two laws of numbers, of which the given ones are products over so many dims; None for other laws."""
    if not (isinstance(p, Distribution) and isinstance(q, Distribution)):
        return None
    dims = 0
    while isinstance(p, Independent) and isinstance(q, Independent):
        if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
            return None
        dims += p.reinterpreted_batch_ndims
        p, q = p.base_dist, q.base_dist
    return None if p.event_shape or q.event_shape or is_circular(p) else (p, q, dims)


def _bounds(support: Any) -> tuple[Any, Any] | None:
    """(low, high) of an interval of real numbers; infinite where there is no bound."""
    if support is constraints.real:
        return None
    low, high = getattr(support, "lower_bound", -math.inf), getattr(support, "upper_bound", math.inf)
    known = hasattr(support, "lower_bound") or hasattr(support, "upper_bound")
    return (low, high) if known else None
