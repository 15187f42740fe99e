"""Share of p(x) at values of discrete latents that the guide's draws do not meet."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...programs import Program
from ...programs.particles.unreached import DRAWS, discrete_latents, unreached_terms
from ..core.chunks import choose_chunk
from ..core.estimate import MOST_UNREACHED, UNREACHED, UNREACHED_ERROR
from ..core.estimator import PerDatum
from .diagnostics import MIN_SAMPLES


def with_unreached(
    program: Program,
    estimators: Sequence[Any],
    results: Mapping[str, PerDatum],
    *,
    drawn: int,
    seed: int,
    budget: int | None,
    rows: Tensor | None,
) -> dict[str, PerDatum]:
    """Results with what their draws miss, `details["unreached"]`, `[N]`, for which their intervals have room.

    Draws z ~ q(z|x) hardly ever meet a value u of a discrete latent with q(u) K < 5, as one whose probability is 0 in
    the numbers that it is drawn with. Without any such draw the mean of the weights has the expectation
    E[w | no u], and p(x) lies above it by the share

        sum_u q(u) (E[w | u] / p̂(x) - 1),

    which is that of the JOINT mass p(x, u) less what the guide gives it. The prior mass of u does not tell: a guide
    that rules u out since the posterior does is as good as any, and misses nothing. E[w | u] is from draws with u put
    in place, one element of one site at a time. Looked at are latents that the guide draws as bits, categories or
    binomial counts.

    Args:
        program: whose guide has draws.
        estimators: those of the results.
        results: by name.
        drawn: K of the estimators that take all draws there are.
        seed: of the noise.
        budget: as in `evidence`.
        rows: the data of the results; None: all.
    """
    concerned = [e for e in estimators if e.name in results and _has_draws_of_the_guide(e, results[e.name])]
    if not concerned:
        return dict(results)
    rows = torch.arange(program.arguments.num_data) if rows is None else rows
    values = torch.stack([results[e.name].log_evidence.cpu().double() for e in concerned])
    number = min((e.num_samples or drawn) for e in concerned)
    measured = _missed_by(program, values, rows, number, seed, budget)
    if measured is None:
        return dict(results)
    found = dict(results)
    for e, share, error in zip(concerned, *measured, strict=True):
        own = {UNREACHED: share, UNREACHED_ERROR: error}
        found[e.name] = replace(results[e.name], details={**results[e.name].details, **own})
    return found


def warn_unreached(
    program: Program, log_evidence: Tensor, num_samples: int, seed: int, budget: int | None
) -> None:
    """Warns of what K draws with estimates `[N]` miss, for results that have no warnings of their own.

    Fewer draws than k-hat needs are no estimate that anything is to be said of.
    """
    if num_samples < MIN_SAMPLES:
        return
    values = log_evidence.cpu().double().unsqueeze(0)
    measured = _missed_by(program, values, torch.arange(len(log_evidence)), num_samples, seed, budget)
    if measured is not None and share_missing(measured[0]):
        warnings.warn(unreached_note(measured[0]), stacklevel=3)


def share_missing(missed: Tensor) -> float:
    """Share of the data of which draws miss a part of p(x) that counts."""
    return float((missed > MOST_UNREACHED).double().mean())


def unreached_note(missed: Tensor) -> str:
    """How much of p(x) such values hold, for how many data, and the remedy."""
    return (
        "values of discrete latents that the guide hardly ever draws hold up to "
        f"{float(missed.max() / (1 + missed.max())):.0%} of p(x), which its draws may not meet, for "
        f"{share_missing(missed):.0%} of the data: a lower bound and no more there; try a guide that draws them, or "
        'enumerate the latent (infer={"enumerate": "parallel"})'
    )


def _missed_by(
    program: Program, values: Tensor, rows: Tensor, number: int, seed: int, budget: int | None
) -> tuple[Tensor, Tensor] | None:
    """Share of p(x) missed and its standard error, against estimates ln p̂(x) `[estimators, rows]`; None: no latents."""
    sites = [] if program.narrower else discrete_latents(program)
    if not sites:
        return None
    whole = torch.full((len(values), program.arguments.num_data), torch.nan, dtype=torch.float64)
    whole[:, rows] = values
    missed, variance = torch.zeros_like(whole), torch.zeros_like(whole)
    chunk = choose_chunk(program, DRAWS, budget)
    for indices in program.arguments.chunks(chunk.data):
        at = indices.cpu()
        if bool(torch.isin(at, rows).any()):
            for site in sites:
                terms = list(unreached_terms(program, site, indices, number, chunk.samples, seed))
                mean, of_mean = _missed(terms, whole[:, at])
                missed[:, at] += mean
                variance[:, at] += of_mean
    return missed[:, rows], variance[:, rows].sqrt()


def _has_draws_of_the_guide(e: Any, result: PerDatum) -> bool:
    return getattr(e, "draws_from_guide", True) and e.direction in ("<=", "~") and result.ess is not None


def _missed(terms: Sequence[tuple[Tensor, Tensor]], value: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over draws of U q(u) (w / p̂ - 1), and its variance, `[estimators, n]` each."""
    log_w, share = (torch.cat(parts).cpu() for parts in zip(*terms, strict=True))
    held = (share + log_w - value.unsqueeze(1)).exp() - share.exp()
    held = held.nan_to_num(nan=0.0, posinf=torch.inf)
    k = held.shape[1]
    return held.mean(1), held.var(1).nan_to_num(nan=torch.inf, posinf=torch.inf) / k
