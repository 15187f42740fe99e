"""Share of p(x) that draws of wider laws find where those of the guide find nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...programs import Program
from ...programs.memory import budget_on
from ...programs.particles.all_values import joint_terms
from ...programs.particles.discrete_values import DiscreteLatents
from ...programs.particles.flatter import FlatLaw, flat_draws
from ...programs.particles.from_prior import prior_weights
from ..core.chunks import Chunk, choose_chunk

MOST = 1024  # draws of a wider law
MOST_OF_FEW = 4096
LEAST = 128
FEW = 40_000  # (datum, draw) pairs that cost little, however few draws an estimate has
LOOK = 16  # draws of the prior, that tell whether more can find anything
LOOKED = 4096  # (datum, draw) pairs that tell it
HOPELESS = -12.0  # ln of p(x|z) / p̂(x), below which none does
LEVEL = 128  # draws of the guide that tell which values it draws
EXPECTED = 5.0  # of K draws: what is drawn less often may not be drawn at all
SIGMAS = 4.0
VALUES_AT_ONCE = 32  # of a datum's latents, that take no longer than the program itself
BYTES_LISTED = 32  # of a listed probability: itself, a random number, and what both are made into


@dataclass(frozen=True)
class Share:
    """A share of p̂(x) and its standard error, `[estimators, N]`."""

    value: Tensor
    error: Tensor

    @classmethod
    def of_terms(cls, terms: Tensor) -> Share:
        """Mean and standard error of independent terms `[estimators, draws, n]`."""
        terms = terms.nan_to_num(nan=0.0, posinf=torch.inf)
        variance = terms.var(1).nan_to_num(nan=torch.inf, posinf=torch.inf) / terms.shape[1]
        return cls(terms.mean(1), variance.sqrt())

    @classmethod
    def of_ratios(cls, ratios: Tensor) -> Share:
        """p̂' / p̂ - 1 of `[estimators, draws, n]`; one more draw, without weight, is in the error."""
        share = cls.of_terms(ratios - 1)
        return cls(share.value, torch.hypot(share.error, (1 + share.value) / ratios.shape[1]))


def of_flatter(
    program: Program,
    latents: DiscreteLatents,
    values: Tensor,
    number: int,
    seed: int,
    budget: int | None,
    rows: int | None = None,
) -> tuple[Share, Share]:
    """Share at values of discrete `latents` that K draws do not meet TOGETHER, and p̂' / p̂ - 1 of a flatter guide.

    Values z of all elements count as not met where ln q(z) lies below that of all draws: far enough below those of 128
    draws for fewer than 5 of K. With draws of a flatter law q' (see `flat_draws`) their share of p(x), less what the
    guide gives them, is

        E_q'[1{not met} q/q' (w / p̂ - 1)].

    Args:
        program: its guide draws the latents.
        latents: of the guide.
        values: ln p̂(x) `[estimators, N]`; NaN: not asked for.
        number: K.
        seed: of the noise.
        budget: as in `evidence`.
        rows: as in `parts`.
    """
    draws = draws_of(program, number, 1 + latents.num_values // VALUES_AT_ONCE)
    law, sites = FlatLaw.of(latents.num_elements), latents.sites
    most = MOST_OF_FEW if program.vectorised else max(draws, number)
    missed, total = (torch.zeros(2, *values.shape, dtype=torch.float64, device="cpu") for _ in range(2))
    for indices, at, samples in parts(program, values, draws, budget, rows, latents.num_values):
        v = values[:, at].unsqueeze(1)
        level = torch.stack(
            [
                flat_draws(program, sites, indices, k, FlatLaw(), seed, block).log_mass.amin(0).cpu()
                for block, k in _blocks(LEVEL, samples)
            ]
        ).amin(0)
        level -= max(0.0, math.log(number / (EXPECTED * LEVEL)))
        level = level.clamp(max=math.log(EXPECTED / number))
        found = [flat_draws(program, sites, indices, k, law, seed, b) for b, k in _blocks(draws, samples)]
        log_w, log_ratio, log_mass = (
            torch.cat([getattr(d, name).cpu() for d in found])
            for name in ("log_weights", "log_ratio", "log_mass")
        )
        held = ((log_w - v).exp() - log_ratio.exp()).masked_fill(log_mass >= level, 0.0)
        more = Share.of_ratios((log_w - v).exp())
        if latents.alone and latents.num_joint and latents.num_joint <= most:
            terms = [
                joint_terms(program, sites, indices, i, k) for i, k in _blocks(latents.num_joint, samples)
            ]
            known = torch.cat(terms).cpu().nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
            ratio = (known.logsumexp(0) - values[:, at]).exp()
            more = Share(ratio - 1, torch.zeros_like(ratio))  # it is known
        for out, share in ((missed, Share.of_terms(held)), (total, more)):
            out[:, :, at] = torch.stack([share.value, share.error])
    return Share(*missed), Share(*total)


def of_prior(
    program: Program, values: Tensor, number: int, seed: int, budget: int | None, rows: int | None = None
) -> Share:
    """p̂' / p̂ - 1, p̂' of draws of the prior; where the first say that more find nothing, of these alone.

    Args as in `of_flatter`; raises whatever the model raises at draws of its prior.
    """
    found = torch.zeros(2, *values.shape, dtype=torch.float64, device="cpu")
    draws = draws_of(program, number)
    for indices, at, samples in parts(program, values, draws, budget, rows):
        log_w = torch.empty(0, len(at), dtype=torch.float64, device="cpu")
        v = values[:, at].unsqueeze(1)
        look = min(draws, max(LOOK, LOOKED // len(at)))
        for first, size in ((0, look), (look, draws - look)):
            more = [
                prior_weights(program, indices, k, seed, first + b).cpu().double()
                for b, k in _blocks(size, samples)
            ]
            log_w = torch.cat([log_w, *more])
            if not bool((log_w - v > HOPELESS).any()):
                break
        share = Share.of_ratios((log_w - v).exp())
        found[:, :, at] = torch.stack([share.value, share.error])
    return Share(*found)


def draws_of(program: Program, number: int, cost: int = 1) -> int:
    """How many draws of a wider law are held against K = `number` of the guide: a quarter, but 128 to 1,024.

    Up to 4,096 (over `cost`) of few data, which take no longer, where samples are run at once.
    """
    few = min(MOST_OF_FEW, FEW // (cost * program.arguments.num_data)) if program.vectorised else 0
    return max(LEAST, min(MOST, number // 4), few)


def parts(
    program: Program,
    values: Tensor,
    draws: int,
    budget: int | None,
    rows: int | None = None,
    num_values: int = 0,
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Indices of chunks with data that are asked for, on the device and on the CPU, and samples to run at once.

    Args:
        program: whose data these are.
        values: `[estimators, N]`; NaN: not asked for.
        draws: of each datum.
        budget: bytes, as in `evidence`.
        rows: data at once, as they are for the estimates, so that a shard has whole chunks; None: as many as fit.
        num_values: probabilities that are listed for a datum and draw, beside what the program itself takes.
    """
    chunk = choose_chunk(program, draws, budget)
    if program.arguments.calling == "sliced":
        pairs = chunk.data * chunk.samples
        if num_values:
            pairs = min(pairs, budget_on(program.arguments.x.device, budget) // (BYTES_LISTED * num_values))
        data = rows or max(1, min(chunk.data, pairs // chunk.samples))
        chunk = Chunk(data, max(1, min(chunk.samples, pairs // data)))
    for indices in program.arguments.chunks(chunk.data):
        at = indices.cpu()
        if bool(torch.isfinite(values[:, at]).any()):
            yield indices, at, chunk.samples


def _blocks(number: int, samples: int) -> Iterator[tuple[int, int]]:
    for start in range(0, number, samples):
        yield start, min(samples, number - start)
