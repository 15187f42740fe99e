"""Refusals of evidence: numbers of samples, programs without a density, data and weights that mean nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...programs import Program, check_kind, drawn_outside, undefined_laws
from .apart import check_apart
from .chunks import choose_chunk


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raises ValueError unless `value` is a whole number >= `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"expected {name} to be a whole number >= {least}, got {value!r}")


def check_num_samples(num_samples: Any) -> None:
    """Raises ValueError unless `num_samples` is a whole number >= 1."""
    check_count("num_samples (K)", num_samples)


def check_density(program: Program) -> None:
    """Refuses programs for which exp(log w) does not estimate p(x).

    Raises:
        ValueError: for a surrogate density, a factor that is not declared, or a model with random numbers that are no
            sites, or whose numbers for one sample depend on the others.
    """
    density = program.declaration.density
    if density == "bound_only":
        raise ValueError(
            "expected a program with a density, got one declared density='bound_only': its factors are "
            "surrogates whose expectation bounds ln p(x), and exp(log w) means nothing; use its bound (pv.ELBO)"
        )
    if program.guide_factors and density is None:
        names = list(program.guide_factors)
        raise ValueError(
            f"expected a guide whose density is that of its draws, got pyro.factor at {names} in the guide, which "
            f"would count in ln q; try poutine.block(guide, hide={names}) for a term of a loss, or "
            "@pyrovae.program(density='exact') on the model where it is a part of ln q"
        )
    if program.factors and density is None:
        raise ValueError(
            f"expected a model whose density is known, got pyro.factor at {list(program.factors)} undeclared; "
            "decorate it with @pyrovae.program(density='exact' | 'unnormalised' | 'bound_only')"
        )
    if "model" in program.random:
        raise ValueError(
            "expected a model whose density is a function of its sites' values, got one that changes from run to run: "
            "it draws random numbers outside of pyro.sample (as torch.randn does), or follows what its runs "
            "change (as a counter in Python), and there is no one p(x); try pyro.sample for such numbers, in model "
            "and guide, and an argument for what changes"
        )
    check_apart(program)


def check_observations(program: Program, budget: int | None = None) -> None:
    """Refuses data that no latent could allow (grey values for bits), by one sample of each datum.

    For estimators that draw no weights: a declared ln p(x), say, has a value there too, which means nothing. Programs
    that do not broadcast are not asked: that would run all data at once.

    Raises:
        ValueError: naming the site and remedies.
    """
    if not program.vectorised:
        return
    for indices in program.arguments.chunks(choose_chunk(program, 1, budget).data):
        with program.quiet(0, "observations"):
            sites = program.run(indices, 1)
        if sites.traces is not None:
            check_kind(sites.traces[1])


def check_elbo(program: Program, budget: int | None = None) -> None:
    """Refuses guides that draw values of weight 0: their ELBO is -inf, and no gap is a number.

    Raises:
        ValueError: naming the latents.
    """
    count = 64 if program.vectorised else 8
    indices = program.arguments.chunks(choose_chunk(program, count, budget).data)[0]
    with program.quiet(0, "support"):
        lost = int((program.run(indices, count).log_weights() == -torch.inf).sum())
    if lost:
        where = "; ".join(drawn_outside(program, indices)) or "values that the likelihood does not allow"
        raise ValueError(
            f"expected a guide whose ELBO is finite, got {lost} of {count * len(indices)} draws with weight 0 "
            f"({where}): the gap is infinite; try a guide with the prior's support, or pv.evidence with "
            "pv.IS, where such draws count as nothing"
        )


def check_weights(block: Tensor, indices: Tensor, program: Program) -> None:
    """-inf is a weight of zero and allowed; NaN and +inf are no weights."""
    if bool((block < torch.inf).all()):  # false for NaN too
        return
    bad = torch.isnan(block) | (block == torch.inf)
    k, n = (int(i) for i in bad.nonzero()[0])
    outside = drawn_outside(program, indices)
    if outside:
        raise ValueError(
            f"expected a guide that draws within the support of the model's latents, got {'; '.join(outside)}: ln p is "
            f"no number there ({int(bad.sum())} of {bad.numel()} weights in this chunk); try a guide with the prior's "
            "support"
        )
    wrong = undefined_laws(program, indices)
    if wrong:
        raise ValueError(
            f"expected laws with parameters within their bounds, got others at draws of the guide: {'; '.join(wrong)}: "
            f"there is no density there ({int(bad.sum())} of {bad.numel()} weights in this chunk); try a positive or a "
            "bounded function of the latents (softplus, sigmoid)"
        )
    raise ValueError(
        f"expected finite log-weights (or -inf), got {block[k, n].item()} for datum {int(indices[n])} "
        f"({int(bad.sum())} of {bad.numel()} in this chunk); the model or guide returned no density there, "
        "as where a parameter leaves its bounds at a rare draw (a probability above 1, a negative rate)"
    )
