"""Refusals of an integral that has not settled, or that draws contradict."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...programs import seeded
from ...programs.latents.joint import Joint
from ...programs.particles.rounding import rounding
from ..quadrature.integrate import Integral
from ..weights.diagnostics import effective_sample_size

MOST_ROUNDING = 1.0  # nats: beyond it a value says nothing
OTHERWISE = "pv.IS or pv.AIS (command line: is or ais in place of exact)"
CHECKS = 256  # draws of each kind that the integral is held against


# ln: draws say nothing of what has a probability of less than 3/K, as rare low weights that none of them is.
UNSEEN = math.log1p(3 / CHECKS)


def check_by_draws(joint: Joint, indices: Tensor, found: Integral, seed: int, chunk: int) -> None:
    """Refuses an integral that importance sampling, from prior or guide, finds more than.

    By 6 of its errors and its own rounding, which near an edge of the numbers may be all of it.

    Raises:
        ValueError: naming the datum.
    """
    program = joint.program
    u = joint.prior_draws(indices, CHECKS)
    total, prior = joint.with_prior(indices, u).double()
    with seeded(seed, "exact check", chunk, device=indices.device):
        weights = {"the prior": total - prior, "the guide": program.run(indices, CHECKS).log_weights()}
    for source, lw in weights.items():
        if program.factors and source == "the prior":
            continue
        lw = torch.where(lw < torch.inf, lw, -torch.inf)  # no number, at an edge: it contradicts nothing
        relative = (1 / effective_sample_size(lw) - 1 / CHECKS).clamp(min=0.0).sqrt()
        low = lw.logsumexp(0) - math.log(CHECKS) + (1 - 6 * relative).clamp(min=0.0).log() - UNSEEN
        missed = low - (found.value + found.error)
        missed = torch.where(low == -torch.inf, -torch.inf, missed)
        if source == "the guide" and bool((missed > 0).any()):
            missed = missed - rounding(program, indices).of_mean
        if bool((missed > 0).any()):
            n = int(torch.nan_to_num(missed, nan=-torch.inf).argmax())
            raise ValueError(
                f"expected a quadrature that draws do not contradict, got ln p(x) = {found.value[n]:.4f} for datum "
                f"{int(indices[n])} where draws of {source} give at least {low[n]:.4f}: it has missed a mode; try "
                f"a guide that reaches it, or {OTHERWISE}"
            )


def refuse_unsettled(
    found: Integral, indices: Tensor, tolerance: float, at: str = "", joint: Joint | None = None
) -> None:
    """Refuses an integral whose error, rounding apart, is beyond the tolerance.

    Args:
        found: of the data at `indices`.
        indices: positions of the data.
        tolerance: nats.
        at: words behind the datum.
        joint: whose draws tell whether mass lies nearer to an edge than numbers do.

    Raises:
        ValueError: saying whether the integral is infinite, the prior is no density over its support, nodes have not
            met all of it, or the integrand is not smooth enough.
    """
    lost = found.rounding > MOST_ROUNDING
    if bool(lost.any()):
        n = int(torch.where(lost, found.rounding, -1.0).argmax())
        raise ValueError(
            f"expected densities that rounding leaves standing, got an error of {found.rounding[n]:.2g} nats by it for "
            f"datum {int(indices[n])}{at} ({int(lost.sum())} of {len(lost)} data), where ln p(x) would be "
            f"{found.value[n]:.4g}: some law's density is no number at far values of the latents; try float64 "
            f"(x.double(), and .double() of the modules), or {OTHERWISE}"
        )
    beyond = torch.zeros_like(found.error) if found.beyond is None else found.beyond
    _refuse_infinite(beyond, indices, at)
    error = torch.maximum(found.error - 2 * found.rounding, beyond)
    bad = ~(error <= tolerance)
    if not bool(bad.any()):
        return
    n = int(torch.where(bad, torch.nan_to_num(error, nan=torch.inf), -1.0).argmax())
    where = f"datum {int(indices[n])}{at} ({int(bad.sum())} of {len(bad)} data)"
    mass = float(found.prior[n].exp())
    unmet = not abs(mass - 1) <= 1e-3
    far = not beyond[n] <= 0.5 * tolerance
    at_edge = _at_an_edge(joint, indices[n : n + 1]) if unmet and joint is not None else 0
    if at_edge and joint is not None:
        raise ValueError(
            f"expected a prior whose mass lies where numbers of {str(joint.dtype).removeprefix('torch.')} do, got "
            f"{at_edge} of {CHECKS} draws put at the last number before an edge of its support for {where}, where its "
            f"density is no number: nodes have met {mass:.4g} of its mass; try a law of the logit or logarithm of this "
            f"latent (LogNormal, LogitNormal), or {OTHERWISE}"
        )
    if far and (at or not unmet):
        raise ValueError(
            f"expected tails of which all but {tolerance:g} of the integral lies among the numbers that nodes reach, "
            f"got {beyond[n]:.2g} of it beyond them for {where}: it falls off slowly; try a larger tolerance, "
            + ("lower temperatures, " if at else "")
            + "or laws with lighter tails"
        )
    if unmet:
        raise ValueError(
            f"expected a prior whose density integrates to 1 over the support that its laws declare, got {mass:.4g} "
            f"for {where} with {found.nodes:,} nodes: a law that is no density there (periodic, truncated, improper), "
            f"or mass in a place that no node has met; try laws that are normalised over their support, or {OTHERWISE}"
        )
    raise ValueError(
        f"expected an integral that settles within {tolerance:g} nats, got an error of {error[n]:.2g} nats for {where} "
        f"with {found.nodes:,} nodes; it may be infinite or have jumps; try a guide that is closer to the posterior, a "
        f"larger tolerance, {OTHERWISE}"
    )


def _refuse_infinite(beyond: Tensor, indices: Tensor, at: str) -> None:
    """Refuses an integrand that falls too slowly to have an integral."""
    bad = ~(beyond < torch.inf)
    if not bool(bad.any()):
        return
    n = int(bad.double().argmax())
    of, remedy = (
        ("p(x, z)^{1/T}", "lower temperatures") if at else ("p(x, z)", "priors that rule this end out")
    )
    raise ValueError(
        f"expected {of} to have an integral over the latents, got an infinite one for datum {int(indices[n])}{at} "
        f"({int(bad.sum())} of {len(bad)} data): towards an end of a latent's range it falls no faster than one over "
        f"the distance, or rises as that to the end; try {remedy}, or laws with lighter tails"
    )


def _at_an_edge(joint: Joint, row: Tensor) -> int:
    """How many draws of a datum's prior are one of the two outermost numbers, which more than one draw is."""
    u = joint.prior_draws(row, CHECKS)[:, 0]
    ends = [(u == end) & ((u == end).sum(0) > 1) for end in (u.amin(0), u.amax(0))]
    return int(((ends[0] | ends[1]) | ~u.isfinite()).any(-1).sum())
