"""Latents that the guide computes (a Delta): each number needs an auxiliary draw that moves it."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from ...devices import as_tensor
from ..handlers.substitute import Substitute
from ..inspection import Program
from ..latents.supports import base_of, bijection
from ..seeds import seeded
from ..sites import is_factor, sample_sites, unscaled_log_prob
from .agreement import is_enumerated, mask_of, shared_latents

DRAWS = 3  # at which a map's Jacobian is looked at
MOST = 256  # numbers of a map that it is looked at for
JACOBIAN = 1e-3  # rounding of ln|dz/de| in float32, as a share


def check_points(program: Program) -> None:
    """Refuses point estimates beside latents that auxiliary draws are mapped to, as of AutoDelta beside AutoNormal.

    A Delta ends a change of variables: the auxiliary draw has the density of the latent. One that no such draw moves
    has no density: E_q[w] is then p(x, y) at a point y, which may be above p(x). The guide is run again with other
    auxiliary draws and the same other latents; and the numbers of both are counted, in unconstrained coordinates.

    Raises:
        ValueError: naming the latents.
    """
    with program.on(program.arguments.chunks(2)[0]) as given:
        traces = program.traces(given, None)
        points = {
            n: (own, site["fn"])
            for n, own, site in shared_latents(*traces)
            if isinstance(base_of(own["fn"]), dist.Delta)
        }
        if not points:
            return
        drawn = dict(sample_sites(traces[0]))
        known = {n for n, _, _ in shared_latents(*traces)}
        auxiliary = [
            s for n, s in drawn.items() if n not in known and not s["is_observed"] and not is_factor(s)
        ]
        fixed = {n: drawn[n]["value"] for n in known - points.keys() if not is_enumerated(drawn[n])}
        again, _ = replace(program, guide=Substitute(fixed)(program.guide)).traces(given, None)
    still = [n for n, (own, law) in points.items() if _stands(law, own["value"], again.nodes[n]["value"])]
    if still:
        raise ValueError(
            f"expected a guide with a density, got a point estimate (Delta) at {still}, which no auxiliary draw moves: "
            "E_q[w] would be p(x, z) at a point, no p(x); try a law with a width there, such as AutoNormal in place of "
            "AutoDelta"
        )
    try:
        free = [math.prod(bijection(law).inverse_shape(law.event_shape)) for _, law in points.values()]
    except (NotImplementedError, AttributeError):
        return  # no coordinates are known
    wanted = sum(_places(own) * size for (own, _), size in zip(points.values(), free, strict=True))
    got = sum(_places(s) * math.prod(s["fn"].event_shape) for s in auxiliary)
    if wanted != got:
        n = len(given[0])
        raise ValueError(
            f"expected as many auxiliary numbers as the latents {list(points)} have that they are mapped to, got "
            f"{got / n:g} for {wanted / n:g} per datum: the map has no Jacobian, and the weights estimate no p(x); try "
            "one auxiliary number for each"
        )
    _check_jacobian(
        program, list(points), [n for n, s in drawn.items() if any(s is a for a in auxiliary)], fixed
    )


def _check_jacobian(program: Program, points: list[str], auxiliary: list[str], fixed: dict[str, Any]) -> None:
    """Refuses Deltas whose log-densities together are not -ln|dz/de| of the map from auxiliary draws e to latents z.

    Held against autograd's at a few draws, where z and e are as many real numbers, and not too many; else a
    log-density that is 0 throughout is told of. A map of discrete draws has no such thing, and factors of the guide
    may stand for it.

    Raises:
        ValueError: naming the latents.
    """
    told, kept = [], True
    for seed in range(DRAWS):
        with (
            program.on(program.arguments.chunks(1)[0]) as given,
            seeded(seed, "points", device=program.arguments.x.device),
        ):
            traces = program.traces(given, None)
            drawn = traces[0].nodes
            if program.guide_factors or any(not _is_continuous(drawn[n]["fn"]) for n in auxiliary):
                return
            made = [drawn[n] for n in points]
            sites = [*made, *(drawn[n] for n in auxiliary), *(traces[1].nodes[n] for n in points)]
            if not all(bool(as_tensor(mask_of(s)).all()) for s in sites):
                return  # of what is left out neither counts
            told.append(float(sum(unscaled_log_prob(s, masked=False).double().sum() for s in made)))
            z, e = (_flat([drawn[n]["value"] for n in names]) for names in (points, auxiliary))
            if z.shape != e.shape:  # densities of simplices and the like are of fewer numbers than they have
                return
            if torch.equal(z, e):
                continue
            held = {n: drawn[n]["value"] for n in fixed}
            volume = _log_volume(program, given, held, {n: drawn[n]["value"] for n in auxiliary}, points)
        if volume is None:
            kept = False
        elif math.isfinite(volume + told[-1]) and abs(volume + told[-1]) > JACOBIAN * (10 + abs(volume)):
            raise ValueError(
                f"expected Deltas at {points} whose log_density is -ln|dz/de| of the map from the auxiliary draws "
                f"{auxiliary}, got {told[-1]:.4g} for {-volume:.4g} nats: the weights would estimate no p(x); try "
                "dist.Delta(z, log_density=-ln|dz/de|), or the law of z itself, as a TransformedDistribution"
            )
    if not kept and not any(told):
        warnings.warn(
            f"the guide maps auxiliary draws {auxiliary} to {points} by Deltas with a log_density of 0, which is right "
            "only if the map keeps volumes: that could not be looked at here",
            stacklevel=3,
        )


def _log_volume(
    program: Program, given: tuple[Any, ...], held: dict[str, Any], at: dict[str, Tensor], points: list[str]
) -> float | None:
    """ln|dz/de| of the guide's map at these auxiliary draws e; None where autograd does not tell."""
    starts = {n: v.detach().clone().requires_grad_() for n, v in at.items()}
    if sum(v.numel() for v in starts.values()) > MOST:
        return None
    rows = []
    try:
        with torch.enable_grad():
            trace: Any = poutine.trace(Substitute(held | starts)(program.guide)).get_trace(*given)
            for number in _flat([trace.nodes[n]["value"] for n in points]):
                slopes: Any = torch.autograd.grad(
                    number, list(starts.values()), retain_graph=True, materialize_grads=True
                )
                rows.append(_flat(list(slopes)))
    except Exception:  # what takes no gradients is not run with them
        return None
    return float(torch.linalg.slogdet(torch.stack(rows)).logabsdet)


def _flat(values: list[Tensor]) -> Tensor:
    return torch.cat([v.reshape(-1).double() for v in values])


def _is_continuous(fn: Any) -> bool:
    support = getattr(fn, "support", None)
    return support is not None and not support.is_discrete


def _stands(law: Any, value: Tensor, again: Tensor) -> bool:
    """Whether a number of a latent, in unconstrained coordinates, is the same in both runs for all data."""
    try:
        to = bijection(law)
        value, again = to.inv(value), to.inv(again)
    except (NotImplementedError, AttributeError):
        return bool(torch.equal(value, again))
    same = value == again
    event = len(to.inverse_shape(law.event_shape))
    return bool(same.reshape(-1, *same.shape[same.dim() - event :]).all(0).any())


def _places(site: Any) -> int:
    return math.prod(f.size for f in site["cond_indep_stack"] if f.vectorized)
