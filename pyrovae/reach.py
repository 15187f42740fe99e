"""Does one law have density where another has none?"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, constraints

from .programs.supports import is_circular

# How far beyond a bound is looked, relative to 1 + |bound|.
OFFSETS = (1e-4, 1e-2, 0.1, 1.0, 10.0)


def reaches_beyond(p: Any, q: Any) -> Tensor | None:
    """Whether p has positive density beyond the bounds of q's support, batch-shaped; None where that is not known.

    p is evaluated there: the support that it declares may be wider than its own. Laws of real numbers and products
    of them (Independent) are compared; a positive density at one point outside is taken for that of a neighbourhood.
    """
    if not (isinstance(p, Distribution) and isinstance(q, Distribution)):
        return None
    dims = 0
    while isinstance(p, Independent) and isinstance(q, Independent):
        if p.reinterpreted_batch_ndims != q.reinterpreted_batch_ndims:
            return None
        dims += p.reinterpreted_batch_ndims
        p, q = p.base_dist, q.base_dist
    if p.event_shape or q.event_shape or is_circular(p):
        return None
    try:
        own, bounds = p.support, _bounds(q.support)
        if bounds is None or own is None or own.is_discrete or q.support.is_discrete:
            return None
        shape = torch.broadcast_shapes(p.batch_shape, q.batch_shape)
        found = torch.zeros(shape, dtype=torch.bool)
        for bound, side in zip(bounds, (-1, 1), strict=True):
            edge = torch.as_tensor(bound).detach()
            edge = (edge if edge.is_floating_point() else edge.to(torch.get_default_dtype())).expand(shape)
            for offset in OFFSETS:
                x = edge + side * offset * (1 + edge.abs())
                usable = torch.isfinite(x) & own.check(x)
                if not bool(usable.any()):
                    continue
                # What p may not be asked about is replaced by a draw of its own.
                log_p = p.expand(shape).log_prob(torch.where(usable, x, p.expand(shape).sample()))
                found = found.to(log_p.device) | (usable & torch.isfinite(log_p))
    except (NotImplementedError, AttributeError):
        return None
    return found.flatten(found.dim() - dims).any(-1) if dims else found


def _bounds(support: Any) -> tuple[Any, Any] | None:
    """(low, high) of an interval of real numbers; infinite where there is no bound."""
    if support is constraints.real:
        return None
    low, high = getattr(support, "lower_bound", -math.inf), getattr(support, "upper_bound", math.inf)
    known = hasattr(support, "lower_bound") or hasattr(support, "upper_bound")
    return (low, high) if known else None
