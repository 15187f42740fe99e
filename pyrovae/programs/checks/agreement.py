"""Agreement of guide and model on each latent: its plates, its mask, its kind of values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyro.distributions as dist
from torch import Tensor

from ...devices import as_tensor
from ..latents.supports import base_of
from ..sites import is_factor, sample_sites


def shared_latents(guide_trace: Any, model_trace: Any) -> Iterator[tuple[str, Any, Any]]:
    """`(name, guide site, model site)` of the latents that both sides draw."""
    own = dict(sample_sites(guide_trace))
    for name, site in sample_sites(model_trace):
        if not site["is_observed"] and name in own:
            yield name, own[name], site


def check_latents(guide_trace: Any, model_trace: Any, plate: str) -> None:
    """Refuses a pair whose weights would estimate no p(x), by a guide trace and the model's replayed against it.

    Raises:
        ValueError: an inner plate that subsamples; plates, a mask, or a kind of values (discrete, continuous) that a
            latent has on one side only.
    """
    refuse_inner_subsampling((guide_trace, model_trace), plate)
    pairs = list(shared_latents(guide_trace, model_trace))
    for name, own, site in pairs:
        here, there = _plates(site), _plates(own)
        if here != there:
            raise ValueError(
                f"expected the same plates (dim, size) around latent {name!r} in model and guide, got "
                f"{sorted(here)} in the model and {sorted(there)} in the guide"
            )
        kinds = [_kind(s["fn"]) for s in (site, own)]
        if None not in kinds and kinds[0] != kinds[1]:
            raise ValueError(
                f"expected a guide that draws {name!r} as the model does, got {kinds[0]} values in the model and "
                f"{kinds[1]} ones in the guide, whose densities cannot be divided"
            )
    _check_masks(guide_trace, pairs)


def refuse_inner_subsampling(traces: tuple[Any, ...], plate: str) -> None:
    """Refuses plates within a datum that subsample: a weight made of a part of a datum estimates no p(x).

    Raises:
        ValueError: naming plate and site.
    """
    for name, site in (pair for trace in traces for pair in sample_sites(trace)):
        for f in site["cond_indep_stack"]:
            if f.name != plate and f.full_size is not None and f.full_size != f.size:
                raise ValueError(
                    f"expected subsampling of the plate {plate!r} alone, got it in {f.name!r} at {name!r}: "
                    "a weight made of a part of a datum estimates no p(x); try it without subsample_size"
                )


def mask_of(site: Any) -> Any:
    """True, or booleans that broadcast to the site's value: False where a mask takes its density away."""
    mask, fn = _wide(site["mask"], site["fn"].event_dim), site["fn"]
    while isinstance(fn, dist.MaskedDistribution | dist.Independent):
        if isinstance(fn, dist.MaskedDistribution):
            inner = _wide(fn._mask, fn.event_dim)
            mask = inner if mask is True else mask & inner
        fn = fn.base_dist
    return mask


def is_enumerated(site: Any) -> bool:
    """Whether the site is summed out: its own density is then never masked."""
    return site["infer"].get("_enumerate_dim") is not None


def _check_masks(guide_trace: Any, pairs: list[tuple[str, Any, Any]]) -> None:
    points = []
    for name, own, site in pairs:
        if is_enumerated(site):
            continue
        if isinstance(base_of(own["fn"]), dist.Delta):
            points.append((name, site))
        elif _differ(mask_of(own), mask_of(site)):
            hint = "put poutine.mask, or .mask(), around the latent on both sides"
            if name.endswith("_unobserved"):
                hint = f"put poutine.mask(mask=~obs_mask) around {name!r} in the guide, as pyro does in the model"
            _refuse_mask(name, mask_of(site), f"{_left_out(mask_of(own))} in the guide", hint)
    known = {name for name, _, _ in pairs}
    auxiliary = [
        (n, s)
        for n, s in sample_sites(guide_trace)
        if n not in known and not is_factor(s) and not is_enumerated(s)
    ]
    # A Delta has no density of its own: the mask of what it is computed from counts.
    for these, others in ((points, auxiliary), (auxiliary, points)):
        for name, site in these if others else ():
            if all(_differ(_by_batch(site), _by_batch(other)) for _, other in others):
                names = [n for n, _ in others]
                _refuse_mask(
                    name,
                    mask_of(site),
                    f"no such mask at {names}, which stand for it",
                    "put poutine.mask around the auxiliary draw and its latent, on both sides",
                )


def _refuse_mask(name: str, mask: Any, got: str, hint: str) -> None:
    raise ValueError(
        f"expected the same mask of latent {name!r} in model and guide, got {_left_out(mask)} here and {got}: the "
        f"weights p(x, z)/q(z|x) would estimate no p(x); {hint}"
    )


def _left_out(mask: Any) -> str:
    mask = as_tensor(mask)
    if mask.all():
        return "no value left out"
    return (
        "all values left out" if not mask.any() else f"{int((~mask).sum())} of {mask.numel()} values left out"
    )


def _differ(a: Any, b: Any) -> bool:
    a, b = as_tensor(a), as_tensor(b)
    if a.all() and b.all():
        return False
    try:
        return bool((a.to(b.device) != b).any())
    except RuntimeError:  # shapes that do not broadcast
        return True


def _by_batch(site: Any) -> Tensor:
    """The mask `[*batch]`; that of a site masked in part of its event is kept whole, and fits no other."""
    mask = as_tensor(mask_of(site))
    dims = tuple(range(-min(site["fn"].event_dim, mask.dim()), 0))
    if not dims:
        return mask
    return mask.all(dims) if bool((mask.all(dims) == mask.any(dims)).all()) else mask


def _wide(mask: Any, event_dim: int) -> Any:
    if mask is None or mask is True:
        return True
    mask = as_tensor(mask)
    return mask.reshape((*mask.shape, *(1,) * event_dim))


def _plates(site: Any) -> set[tuple[int, int]]:
    return {(f.dim, f.size) for f in site["cond_indep_stack"] if f.vectorized}


def _kind(fn: Any) -> str | None:
    if isinstance(base_of(fn), dist.Delta):
        return None
    try:
        return "discrete" if fn.support.is_discrete else "continuous"
    except (NotImplementedError, AttributeError):
        return None
