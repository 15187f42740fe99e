"""Share of p(x) that a guide's draws do not meet."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...devices import as_tensor
from ...programs import Program
from ...programs.particles.discrete_values import DiscreteLatents, discrete_latents
from ...programs.particles.unreached import DRAWS, unreached_terms
from ..core.chunks import Chunk
from ..core.estimate import MOST_UNREACHED, TAIL, UNREACHED, UNREACHED_ERROR
from ..core.estimator import PerDatum
from .beyond import FAILED, keys_of
from .diagnostics import MIN_ESS, MIN_SAMPLES
from .rounding import KEY as ROUNDING
from .wider import SIGMAS, Share, of_flatter, of_prior, parts

# Variance of ln p̂ up to which a datum may have an interval, and a ratio to it says something.
STEADY = 1 / MIN_ESS


def with_unreached(
    program: Program,
    estimators: Sequence[Any],
    results: Mapping[str, PerDatum],
    *,
    drawn: int,
    seed: int,
    budget: int | None,
    rows: Tensor | None,
    chunk: Chunk | None,
) -> dict[str, PerDatum]:
    """Results with what their draws miss in their details, `[N]` each.

    `"unreached"`, for which their intervals have room: the share of p(x) at values of discrete latents that the guide
    hardly ever draws. Draws z ~ q(z|x) hardly ever meet a value u with q(u) K < 5, as one whose probability is 0 in
    the numbers that it is drawn with. Without any such draw the mean of the weights has the expectation
    E[w | no u], and p(x) lies above it by the share

        sum_u q(u) (E[w | u] / p̂(x) - 1),

    which is that of the JOINT mass p(x, u) less what the guide gives it. The prior mass of u does not tell: a guide
    that rules u out since the posterior does is as good as any, and misses nothing. It is measured for single elements
    put in place (`unreached_terms`) and for values of all elements together (`of_flatter`). Looked at are latents that
    the guide draws as bits, categories or counts.

    `"beyond, prior"`, and with discrete latents `"beyond, flatter"`: p̂'(x) / p̂(x) - 1 of few draws of a wider law,
    which find a mode that the guide leaves out, if they meet it (see `found_beyond`).

    Args:
        program: whose guide has draws.
        estimators: those of the results.
        results: by name.
        drawn: K of the estimators that take all draws there are.
        seed: of the noise.
        budget: as in `evidence`.
        rows: the data of the results; None: all.
        chunk: of the estimates.
    """
    concerned = [e for e in estimators if e.name in results and _has_draws_of_the_guide(e, results[e.name])]
    if not concerned or program.narrower:
        return dict(results)
    rows = torch.arange(program.arguments.num_data, device="cpu") if rows is None else rows
    values = torch.full(
        (len(concerned), program.arguments.num_data), torch.nan, dtype=torch.float64, device="cpu"
    )
    values[:, rows] = torch.stack([results[e.name].log_evidence.cpu().double() for e in concerned])
    numbers = [e.num_samples or drawn for e in concerned]
    at_once = None if chunk is None else chunk.data
    missed, shares = None, {}
    if (latents := discrete_latents(program)).sites:
        missed, shares["flatter"] = _missed_by(program, latents, values, min(numbers), seed, budget, at_once)
    most, failed = max(numbers), {}
    if most >= MIN_ESS or any(_has_equal_weights(results[e.name]) for e in concerned):
        try:
            shares["prior"] = of_prior(program, values, most, seed, budget, at_once)
        except Exception as error:  # whatever a model raises of latents that its guide never draws
            why = str(error).strip().split("\n")[0]
            failed = {FAILED: f"{type(error).__name__}: {why[:200]}"}
    found = dict(results)
    for i, e in enumerate(concerned):
        own: dict[str, Any] = {**failed}
        if missed is not None:
            own |= {UNREACHED: missed.value[i, rows], UNREACHED_ERROR: missed.error[i, rows]}
            if latents.alone:
                own |= _without_tails_of_ties(results[e.name])
        for law, share in shares.items():
            own |= _beyond(law, share.value[i, rows], share.error[i, rows], results[e.name])
        found[e.name] = replace(results[e.name], details={**results[e.name].details, **own})
    return found


def warn_unreached(
    program: Program, log_evidence: Tensor, num_samples: int, seed: int, budget: int | None
) -> None:
    """Warns of what K draws with estimates `[N]` miss, for results that have no warnings of their own.

    Fewer draws than k-hat needs are no estimate that anything is to be said of.
    """
    if num_samples < MIN_SAMPLES or program.narrower or not (latents := discrete_latents(program)).sites:
        return
    values = log_evidence.cpu().double().unsqueeze(0)
    missed, _ = _missed_by(program, latents, values, num_samples, seed, budget)
    if share_missing(missed.value):
        warnings.warn(unreached_note(missed.value), stacklevel=3)


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
    program: Program,
    latents: DiscreteLatents,
    values: Tensor,
    number: int,
    seed: int,
    budget: int | None,
    rows: int | None = None,
) -> tuple[Share, Share]:
    """Share of p(x) missed, against estimates ln p̂(x) `[estimators, N]`, and p̂' / p̂ - 1 of a flatter guide.

    Single elements are measured well, values that count only together with few draws: these say the share, where they
    are sure that it is larger; else it is allowed for in the error.
    """
    single, variance = torch.zeros_like(values), torch.zeros_like(values)
    for indices, at, samples in parts(program, values, DRAWS, budget, rows, latents.num_values):
        for site in latents.sites:
            terms = list(unreached_terms(program, site, indices, number, samples, seed))
            log_w, of_guide = (torch.cat(own).cpu() for own in zip(*terms, strict=True))
            own = (of_guide + log_w - values[:, at].unsqueeze(1)).exp() - of_guide.exp()
            share = Share.of_terms(own)
            single[:, at] += share.value
            variance[:, at] += share.error.square()
    joint, total = of_flatter(program, latents, values, number, seed, budget, rows)
    least = joint.value - SIGMAS * joint.error
    sure = least > single.clamp(min=0)
    unsure = torch.hypot(joint.error, (joint.value - single.clamp(min=0)).clamp(min=0) / 2)
    error = torch.where(sure, joint.error, torch.maximum(variance.sqrt(), unsure))
    return Share(torch.where(sure, joint.value, single), error), total


def _has_equal_weights(result: PerDatum) -> bool:
    """Whether those of some datum are: they support an interval, however few they are."""
    return result.khat is not None and bool((result.khat == -torch.inf).any())


def _without_tails_of_ties(result: PerDatum) -> dict[str, Tensor]:
    """Weights of few values have no tail: what fewer than five of the largest are above is a value drawn often.

    The values of these few are drawn less than five times, as those that are measured apart.
    """
    tail = result.details.get(TAIL)
    if tail is None or result.khat is None:
        return {}
    tied = (result.khat == torch.inf).cpu() & result.log_evidence.isfinite().cpu()
    return {TAIL: tail.masked_fill(tied.to(tail.device), 0.0)}


def _beyond(law: str, share: Tensor, error: Tensor, result: PerDatum) -> dict[str, Tensor]:
    """Share of p(x) that a law finds beyond a result.

    To first order E[p̂' / p̂] = 1 + Var[p̂] / p(x)^2 where both are right.
    """
    variance = result.variance.cpu().double()
    variance = torch.where(variance <= STEADY, variance, torch.inf)  # where it is NaN, too
    rounding = as_tensor(result.details.get(ROUNDING, 0.0)).cpu()
    error = torch.hypot(error, (1 + share) * variance.sqrt()) + rounding
    more = (1 + share) * (1 - variance.clamp(max=STEADY)) - 1
    return dict(zip(keys_of(law), (more, error), strict=True))


def _has_draws_of_the_guide(e: Any, result: PerDatum) -> bool:
    return getattr(e, "draws_from_guide", True) and e.direction in ("<=", "~") and result.ess is not None
