r"""ELBO surgery: the KL to the prior as mutual information plus the KL of the aggregate posterior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..checking import checked
from ..programs import Program, inspect_program, seeded
from ..programs.latents.pairwise import GuideDraws, PairwiseGuide
from ..programs.memory import budget_on
from ..programs.particles.unreached import unmet_mass
from ..progress import Progress, listener, shows_progress
from .surgery_terms import ElboSurgery

# (draw, datum) pairs whose densities are kept at once, whatever the budget: noise is drawn by chunk
KEPT = 2**23


@checked
@shows_progress("pairs of data")
def elbo_surgery(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    num_samples: int = 10,
    components: int | None = None,
    seed: int = 0,
    plate: str | None = None,
    budget: int | None = None,
    progress: Progress = True,
) -> ElboSurgery:
    r"""Splits the mean KL to the prior (Hoffman & Johnson 2016, http://approximateinference.org/accepted/HoffmanJohnson2016.pdf).

    Every draw of every datum is scored under the guide of every datum (or of `components` drawn at random, its own
    among them), in blocks: K N^2 densities, the encoder once a block. The first term measures how well z tells the
    data apart, the second what a better prior could still win.

    Args:
        model, guide, x, *context, seed, plate: as in `pv.log_weights`; any guide with a density of the
            model's latents, which may be discrete, constrained and in a hierarchy.
        num_samples: K draws for each datum.
        components: M >= 3 data, of which the aggregate of each block of data is made; default: all.
        budget: bytes of live tensors of a block; default 24 MiB on CPU, 2 GiB on CUDA.
        progress: a bar, or a function that is called with (done, total) in (draw, datum) pairs; as in `evidence`.

    Raises:
        ValueError: K < 1, fewer than two data, M outside of 3 ... N; a guide without such a density; a prior that
            depends on the data or on their context, whose aggregate has no one p(z) to be compared with.
    """
    if len(x) < 2:
        raise ValueError(f"expected at least two data, of which an aggregate is made, got {len(x)}")
    count = len(x) if components is None else components
    if isinstance(count, bool) or not isinstance(count, int) or not min(3, len(x)) <= count <= len(x):
        raise ValueError(
            f"expected components to be a whole number in 3 ... {len(x)} (N), got {components!r}"
        )
    tell = listener(progress)
    program = inspect_program(model, guide, x, *context, plate=plate)
    if program.arguments.calling == "whole":  # all data are run in any case
        count = len(x)
    if program.factors:
        raise ValueError(
            f"expected sites with densities alone, got pyro.factor at {list(program.factors)}: ln p(z) is not known"
        )
    pairwise = PairwiseGuide(program)
    budget = budget_on(x.device, budget)
    # A chunk's (draw, datum) matrix is kept, for the errors over data.
    rows = max(1, min(1024, KEPT // count) // num_samples)
    parts: list[tuple[Tensor, ...]] = []
    shares = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    pairs, done, total = 0, 0, num_samples * len(x) * count
    for i, indices in enumerate(program.arguments.chunks(rows)):
        draws = pairwise.draw(indices, num_samples, seed, i)
        if i == 0:
            pairs = max(1, budget // pairwise.bytes_per_pair(draws.values))
            _check_prior(pairwise, indices, draws)
        chosen = _components(len(x), count, indices, seed, i)
        size = max(1, min(len(chosen), pairs // max(1, min(draws.log_guide.numel(), 512))))
        # Of each draw: ln sum over components, with the own one and without it.
        owner = indices.repeat(num_samples)
        sums = torch.full((2, len(owner)), -torch.inf, dtype=torch.float64, device=x.device)
        kept, at = torch.empty(len(owner), len(chosen), dtype=torch.float64, device=x.device), 0
        for others in _blocks(program, chosen, size):
            step = max(1, pairs // len(others))
            for start in range(0, len(owner), step):
                part = slice(start, start + step)
                value = pairwise({m: v[part] for m, v in draws.values.items()}, others).double()
                kept[part, at : at + len(others)] = value
                own = owner[part].unsqueeze(-1) == others
                both = torch.stack([value, value.masked_fill(own, -torch.inf)]).logsumexp(-1)
                sums[:, part] = torch.logaddexp(sums[:, part], both)
                done += value.numel()
                if tell is not None:
                    tell(min(done, total), total)
            at += len(others)
        shape = draws.log_guide.shape
        # A random subset may lack a draw's own datum: it takes the place of one.
        inside = torch.isin(owner, chosen)
        own_log = draws.log_guide.reshape(-1)
        with_own = torch.where(inside, sums[0], torch.logaddexp(sums[0], own_log))
        size_with = torch.where(inside, len(chosen), len(chosen) + 1).to(sums)
        aggregate = with_own - size_with.log()
        rest = sums[1] - (size_with - 1).log()
        here = (kept - with_own.unsqueeze(-1)).exp_().sum(0) / num_samples
        shares.index_add_(0, chosen, here)
        parts.append(
            (
                draws.log_guide,
                draws.log_prior,
                draws.log_likelihood,
                aggregate.reshape(shape),
                rest.reshape(shape),
            )
        )
    own, prior, likelihood, aggregate, others = (torch.cat(v, 1).cpu() for v in zip(*parts, strict=True))
    shares = shares.cpu() * (len(x) / shares.sum().cpu())
    unmet = unmet_mass(program, num_samples)
    return ElboSurgery(own, prior, likelihood, aggregate, others, count, shares, unmet)


def _components(num_data: int, count: int, indices: Tensor, seed: int, chunk: int) -> Tensor:
    """Indices of the data whose posteriors make up the aggregate for a chunk of data."""
    if count == num_data:
        return torch.arange(num_data, device=indices.device)
    with seeded(seed, "surgery", chunk, device="cpu"):
        return torch.randperm(num_data, device="cpu")[: count - 1].sort().values.to(indices.device)


def _blocks(program: Program, chosen: Tensor, size: int) -> list[Tensor]:
    args = program.arguments
    if args.calling == "sliced":
        return list(chosen.split(size))
    if args.calling == "indexed":
        return list(chosen.split(args.subsample_size or len(chosen)))
    return [torch.arange(args.num_data, device=chosen.device)]


def _check_prior(pairwise: PairwiseGuide, indices: Tensor, draws: GuideDraws) -> None:
    other = (indices + 1) % pairwise.program.arguments.num_data
    elsewhere = pairwise.log_prior_elsewhere(draws, other).double()
    same = (elsewhere - draws.log_prior).abs() <= 1e-4 * (1 + draws.log_prior.abs())
    if not bool((same | (elsewhere == draws.log_prior)).all()):
        raise ValueError(
            "expected one prior p(z) for all data, got ln p(z) that changes with the datum or its context; the "
            "aggregate posterior of such data is comparable with none"
        )
