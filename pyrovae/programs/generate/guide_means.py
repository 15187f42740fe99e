"""Means of the guide, datum by datum and site by site."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from ..inspection import Program
from ..sites import sample_sites
from .generated import ROWS

# What these call their mean is a direction or a mean on the circle, and no E[z].
_DIRECTIONS = (torch.distributions.VonMises, dist.ProjectedNormal, dist.SineBivariateVonMises)
_WRAPPERS = (
    dist.Independent,
    torch.distributions.Independent,
    dist.MaskedDistribution,
    dist.torch_distribution.ExpandedDistribution,
)


def guide_means(program: Program, num_samples: int, seed: int, existing: bool = True) -> dict[str, Tensor]:
    """E_q[z | x_n] of every latent, `[N, *rest]`: inner plates, then the event; sites in the guide's order.

    The mean over draws of what comes before a site of the distribution's own mean, so that one run is exact for a
    guide of one site. A categorical site has its probabilities, `[N, ..., C]`; a site whose distribution does not
    tell E[z] (a flow; a von Mises law, whose mean is that on the circle), the mean of its own draws.

    Args:
        program: the pair and its data.
        num_samples: runs of the guide, where one is not exact.
        seed: of the draws.
        existing: refuse laws whose mean does not exist; else theirs are draws, of which no mean is to be made.

    Raises:
        ValueError: where the guide draws none of the model's latents, or one from a law without a finite mean (of
            Cauchy), whose draws have a mean that settles nowhere.
    """
    latents = _latents(program)
    parts: dict[str, list[Tensor]] = {name: [] for name in latents}
    dtypes: dict[str, torch.dtype] = {}
    for i, rows in enumerate(program.arguments.chunks(ROWS)):
        total: dict[str, Tensor] = {}
        runs = num_samples
        k = 0
        while k < runs:
            with program.quiet(seed, "guide means", i, k), program.on(rows) as given:
                trace = poutine.trace(program.guide).get_trace(*given)
            found = {name: _mean(trace.nodes[name], program.plate, existing) for name in latents}
            if k == 0 and _is_exact(trace, latents):
                runs = 1
            for name, (mean, dtype) in found.items():
                total[name] = mean if k == 0 else total[name] + mean
                dtypes[name] = dtype
            k += 1
        for name, value in total.items():
            parts[name].append(value[: len(rows)] / runs)
    return {name: torch.cat(values).to(dtypes[name]) for name, values in parts.items()}


def _latents(program: Program) -> list[str]:
    """Latents of the model that the guide draws."""
    rows = program.arguments.chunks(2)[0]
    with program.quiet(0, "guide means"), program.on(rows) as given:
        q = poutine.trace(program.guide).get_trace(*given)
        p = poutine.trace(poutine.replay(program.model, trace=q)).get_trace(*given)
    hidden = [n for n, s in sample_sites(p) if not s["is_observed"]]
    found = [n for n, s in sample_sites(q) if n in hidden and not s["is_observed"]]
    if not found:
        raise ValueError(
            f"expected a guide that draws latents of the model, got none of {hidden}; those that are summed out have "
            "no place in a guide"
        )
    return found


def _is_exact(trace: Any, latents: list[str]) -> bool:
    """Whether another run gives the same means: a single site, with a mean of its own."""
    drawn = [n for n, s in sample_sites(trace) if not s["is_observed"]]
    return drawn == latents and len(drawn) == 1 and _own_mean(trace.nodes[drawn[0]]["fn"]) is not None


def _own_mean(fn: Any) -> Tensor | None:
    """Mean that a distribution tells, or its probabilities where it is categorical; None where it tells none."""
    base = _without_wrappers(fn)
    if isinstance(base, torch.distributions.Categorical):
        return base.probs.expand(*fn.batch_shape, *fn.event_shape, base.probs.shape[-1])
    if _is_direction(base):
        return None
    try:
        return fn.mean.expand(fn.batch_shape + fn.event_shape)
    except (NotImplementedError, AttributeError):
        return None


def _without_wrappers(fn: Any) -> Any:
    while isinstance(fn, _WRAPPERS):
        fn = fn.base_dist
    return fn


def _is_direction(base: Any) -> bool:
    if isinstance(base, torch.distributions.MixtureSameFamily):
        return _is_direction(_without_wrappers(base.component_distribution))
    return isinstance(base, _DIRECTIONS)


def _mean(site: Any, plate: str, existing: bool) -> tuple[Tensor, torch.dtype]:
    """Mean of a site in float64, data first and without dims of plates that it is not in; the dtype it had.

    Raises:
        ValueError: a mean that is not finite, where an existing one is asked for.
    """
    fn, value = site["fn"], site["value"]
    mean = _own_mean(fn)
    if mean is not None and not torch.isfinite(mean).all():
        # torch's answer where there is no number, such as of a heavy tail.
        if existing:
            raise ValueError(
                f"expected a guide whose latents have finite means, got a {type(_without_wrappers(fn)).__name__} at "
                f"{site['name']!r}, whose mean is {_first_not_finite(mean)}; try resampled=True, for the means of the "
                "posterior, or the median of pv.posterior's draws"
            )
        mean = None
    mean = value if mean is None else mean
    datum = next(f.dim for f in site["cond_indep_stack"] if f.name == plate)
    batch = value.dim() - fn.event_dim
    first = mean.movedim(batch + datum, 0)
    kept = [s for s in first.shape[1:batch] if s > 1]
    dtype = mean.dtype if mean.is_floating_point() else torch.get_default_dtype()
    return first.reshape(len(first), *kept, *first.shape[batch:]).double(), dtype


def _first_not_finite(mean: Tensor) -> float:
    return float(mean[~torch.isfinite(mean)][0])
