"""Latents whose guide does not reach all that the prior allows."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions.constraints import MixtureSameFamilyConstraint

from ...devices import as_tensor
from ..latents.supports import base_of
from .agreement import is_enumerated, shared_latents
from .support import describe, in_support

DRAWS = 32  # of the prior, where supports cannot be compared by their bounds
# Transforms end a rounding error short of their bounds (torch's sigmoid at 1 - 1.2e-7).
ROUNDING = 1e-5
_BITS = torch.distributions.Bernoulli
_CATEGORIES = torch.distributions.Categorical | torch.distributions.OneHotCategorical
_GEOMETRIC = torch.distributions.Geometric
_INTERVALS = {
    *("_Real", "_Boolean", "_Integer", "_Interval", "_HalfOpenInterval", "_IntegerInterval"),
    *("_GreaterThan", "_GreaterThanEq", "_LessThan", "_IntegerGreaterThan", "_IntegerLessThan"),
}


def narrower_latents(guide_trace: Any, model_trace: Any) -> dict[str, str]:
    """Latents that the guide draws from a smaller set than the model's prior does: name to words.

    E_q[w] is then p(x) less what lies beyond the guide's reach. Compared are the supports that the two laws declare
    (as intervals; transformed laws by the images of their bounds); where these are of other kinds, draws of the prior
    are held against the guide's support.
    """
    found = {}
    for name, own, site in shared_latents(guide_trace, model_trace):
        if isinstance(base_of(own["fn"]), dist.Delta):  # its values are computed: no support says from where
            continue
        if not is_enumerated(own) and (
            _leaves_out(own["fn"], site["fn"]) or _is_one_value(own["fn"], site["fn"])
        ):
            kind = type(base_of(own["fn"])).__name__
            found[name] = f"{name!r}, {kind} with probability zero for values that the prior draws"
        elif is_narrower(own["fn"], site["fn"]):
            kinds = [f"{type(base_of(s['fn'])).__name__} ({describe(s['fn'].support)})" for s in (own, site)]
            found[name] = f"{name!r}, {kinds[0]} for a prior {kinds[1]}"
    return found


def bounds_vary(guide_trace: Any, model_trace: Any) -> bool:
    """Whether the bounds of a latent, or the values it never takes, may differ between data."""
    for _, *sites in shared_latents(guide_trace, model_trace):
        never, one = _never(sites[0]["fn"]), _one_value(sites[0]["fn"])
        varies = (never is not None and never.dim() > 1) or (one is not None and one.dim() > 0)
        if varies and not is_enumerated(sites[0]):
            return True
        for ends in (bounds(s["fn"]) for s in sites if not isinstance(base_of(s["fn"]), dist.Delta)):
            if ends is not None and any(bool(v.isfinite().any()) and v.dim() for v in ends):
                return True
    return False


def is_narrower(guide: Any, prior: Any) -> bool:
    """Whether the guide's law has no density at some values that the prior's law has."""
    a, b = bounds(guide), bounds(prior)
    if a is not None and b is not None:
        low = a[0] > b[0] + ROUNDING * (1 + b[0].abs().nan_to_num(posinf=0.0))
        high = a[1] < b[1] - ROUNDING * (1 + b[1].abs().nan_to_num(posinf=0.0))
        if bool((low | high).any()) or not isinstance(base_of(guide), torch.distributions.MixtureSameFamily):
            return bool((low | high).any())
    try:
        draws = prior.sample((DRAWS,))
        # Between the components of a mixture there may be nothing, which no bounds show.
        return not bool(in_support(guide, draws).all()) or bool((guide.log_prob(draws) == -torch.inf).any())
    except (NotImplementedError, AttributeError, RuntimeError, ValueError):
        return False


def _leaves_out(guide: Any, prior: Any) -> bool:
    """Whether a law on a list of values never draws some that the prior's law draws."""
    own, other = _never(guide), _never(prior)
    if own is None or other is None or len(own) != len(other):
        return False
    width = max(own.dim(), other.dim())
    own, other = (v.reshape(len(v), *(1,) * (width - v.dim()), *v.shape[1:]) for v in (own, other))
    return bool((own & ~other).any())


def _never(fn: Any) -> Tensor | None:
    """`[values, *batch]`: which values of a law on bits or categories have probability zero; None for other laws."""
    base = base_of(fn)
    if not isinstance(base, _BITS | _CATEGORIES):
        return None
    base = getattr(base, "_categorical", base)
    # As given: of the probabilities that torch makes of logits, some are zero by rounding alone.
    given = base._param if base._param is base.__dict__.get("probs") else None
    if isinstance(base, _BITS):
        if given is None:
            return torch.stack([base.logits == math.inf, base.logits == -math.inf])
        return torch.stack([given == 1, given == 0])
    never: Tensor = base.logits == -math.inf if given is None else given == 0
    return never.movedim(-1, 0)


def _is_one_value(guide: Any, prior: Any) -> bool:
    """Whether a law of counts draws one value alone where the prior's draws several."""
    own, other = _one_value(guide), _one_value(prior)
    if own is None:
        return False
    return bool((own if other is None else own & ~other).any())


def _one_value(fn: Any) -> Tensor | None:
    """Batch-shaped: whether a law of counts has all of its mass on one value, as its parameters were given.

    torch clamps probabilities of 0 and 1 where it makes logits of them: such a law's densities are finite elsewhere.
    """
    base = base_of(fn)
    if isinstance(base, torch.distributions.Poisson):
        return base.rate == 0
    if not isinstance(base, torch.distributions.Binomial | torch.distributions.NegativeBinomial | _GEOMETRIC):
        return None
    given = base.__dict__.get("probs")
    p = torch.sigmoid(torch.where(base.logits.isinf(), base.logits, 0.0)) if given is None else given
    if isinstance(base, torch.distributions.Binomial):
        return ((p == 0) | (p == 1)) & (base.total_count > 0)
    return p == 1 if isinstance(base, _GEOMETRIC) else p == 0


def bounds(fn: Any) -> tuple[Tensor, Tensor] | None:
    """Lowest and highest value of each element of a law's draws; None where its support is no box."""
    try:
        support = fn.support
    except (NotImplementedError, AttributeError):
        return None
    mixed = None
    while hasattr(support, "base_constraint"):
        if isinstance(support, MixtureSameFamilyConstraint):
            mixed = -1 - fn.event_dim  # the dim of the components
        support = support.base_constraint
    if type(support).__name__ not in _INTERVALS:
        return None
    if type(support).__name__ == "_Boolean":
        low, high = torch.tensor(0.0, device="cpu"), torch.tensor(1.0, device="cpu")
    else:
        low = as_tensor(getattr(support, "lower_bound", -math.inf)).double().cpu()
        high = as_tensor(getattr(support, "upper_bound", math.inf)).double().cpu()
    if mixed is not None:
        low, high = (
            f(v, mixed) if v.dim() >= -mixed else v for f, v in ((torch.amin, low), (torch.amax, high))
        )
    image = _image(fn)
    return (low, high) if image is None else (torch.maximum(low, image[0]), torch.minimum(high, image[1]))


def _image(fn: Any) -> tuple[Tensor, Tensor] | None:
    """Bounds of a transformed law from those of its base: an affine map of a bounded law declares all real numbers."""
    while isinstance(fn, dist.MaskedDistribution | dist.Independent):
        fn = fn.base_dist
    if not isinstance(fn, dist.TransformedDistribution):
        return None
    ends = bounds(fn.base_dist)
    for transform in fn.transforms:
        if (
            ends is None
            or transform.domain.event_dim
            or transform.codomain.event_dim
            or not transform.bijective
        ):
            return None
        try:
            a, b = (transform(v.to(torch.get_default_dtype())).double().cpu() for v in ends)
        except (NotImplementedError, RuntimeError, ValueError):
            return None
        ends = torch.minimum(a, b), torch.maximum(a, b)
    if ends is None or ends[0].isnan().any() or ends[1].isnan().any():
        return None
    return ends
