"""Share of p(x) that draws of wider laws find where those of the guide find nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ...programs import Program
from ...programs.memory import budget_on
from ...programs.particles.discrete_values import DiscreteLatents
from ...programs.particles.flatter import flat_draws, rates_of
from ...programs.particles.from_prior import prior_weights
from ..core.chunks import Chunk, choose_chunk

FLAT = 1024  # draws of a guide with flatter discrete latents
PRIOR = 1024  # draws of the prior
LOOK = 16  # of them, that tell whether more can find anything
HOPELESS = -12.0  # ln of p(x|z) / p̂(x), below which none does
LEVEL = 128  # draws of the guide that tell which values it draws
EXPECTED = 5.0  # of K draws: what is drawn less often may not be drawn at all
SIGMAS = 4.0
BYTES_LISTED = 32  # of a listed probability: itself, a random number, and what both are made into


@dataclass(frozen=True)
class Share:
    """A share of p̂(x) and its standard error, `[estimators, N]`."""

    value: Tensor
    error: Tensor

    @classmethod
    def of_terms(cls, terms: Tensor) -> Share:
        """Of independent terms `[estimators, draws, n]`."""
        terms = terms.nan_to_num(nan=0.0, posinf=torch.inf)
        variance = terms.var(1).nan_to_num(nan=torch.inf, posinf=torch.inf) / terms.shape[1]
        return cls(terms.mean(1), variance.sqrt())


def of_flatter(
    program: Program, latents: DiscreteLatents, values: Tensor, number: int, seed: int, budget: int | None
) -> tuple[Share, Share]:
    """What values of discrete `latents` hold that K draws of the guide do not meet TOGETHER, and all of p̂' / p̂ - 1.

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
    """
    rates, sites = rates_of(latents.num_elements), latents.sites
    missed, total = (torch.zeros(2, *values.shape, dtype=torch.float64) for _ in range(2))
    for indices, at, samples in parts(program, values, FLAT, budget, latents.num_values):
        v = values[:, at].unsqueeze(1)
        level = torch.stack(
            [
                flat_draws(program, sites, indices, k, (0.0,), seed, block).log_mass.amin(0).cpu()
                for block, k in _blocks(LEVEL, samples)
            ]
        ).amin(0)
        level -= max(0.0, math.log(number / (EXPECTED * LEVEL)))
        level = level.clamp(max=math.log(EXPECTED / number))
        draws = [flat_draws(program, sites, indices, k, rates, seed, b) for b, k in _blocks(FLAT, samples)]
        log_w, log_ratio, log_mass = (
            torch.cat([getattr(d, name).cpu() for d in draws])
            for name in ("log_weights", "log_ratio", "log_mass")
        )
        held = ((log_w - v).exp() - log_ratio.exp()).masked_fill(log_mass >= level, 0.0)
        for out, terms in ((missed, held), (total, (log_w - v).exp() - 1)):
            share = Share.of_terms(terms)
            out[:, :, at] = torch.stack([share.value, share.error])
    return Share(*missed), Share(*total)


def of_prior(program: Program, values: Tensor, number: int, seed: int, budget: int | None) -> Share | None:
    """p̂' / p̂ - 1, p̂' of draws of the prior; None: it cannot be drawn from, or not be scored there.

    Of as many draws as the estimates, at most 1,024; where the first 16 say that none finds anything, of these alone.
    """
    try:
        return _of_prior(program, values, min(PRIOR, number), seed, budget)
    except (NotImplementedError, RuntimeError, ValueError):  # a covariance that has no Cholesky factor there
        return None


def _of_prior(program: Program, values: Tensor, number: int, seed: int, budget: int | None) -> Share:
    found = torch.zeros(2, *values.shape, dtype=torch.float64)
    for indices, at, samples in parts(program, values, number, budget):
        log_w = torch.empty(0, len(at), dtype=torch.float64)
        v = values[:, at].unsqueeze(1)
        for first, size in ((0, LOOK), (LOOK, number - LOOK)):
            more = [
                prior_weights(program, indices, k, seed, first + b).cpu().double()
                for b, k in _blocks(size, samples)
            ]
            log_w = torch.cat([log_w, *more])
            if not bool((log_w - v > HOPELESS).any()):
                break
        share = Share.of_terms((log_w - v).exp() - 1)
        found[:, :, at] = torch.stack([share.value, share.error])
    return Share(*found)


def parts(
    program: Program, values: Tensor, draws: int, budget: int | None, num_values: int = 0
) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Indices of chunks with data that are asked for, on the device and on the CPU, and samples to run at once.

    Args:
        program: whose data these are.
        values: `[estimators, N]`; NaN: not asked for.
        draws: of each datum.
        budget: bytes, as in `evidence`.
        num_values: probabilities that are listed for a datum and draw, beside what the program itself takes.
    """
    chunk = choose_chunk(program, draws, budget)
    if num_values and program.arguments.calling == "sliced":
        pairs = max(1, budget_on(program.arguments.x.device, budget) // (BYTES_LISTED * num_values))
        samples = min(chunk.samples, pairs)
        chunk = Chunk(max(1, min(chunk.data, pairs // samples)), samples)
    for indices in program.arguments.chunks(chunk.data):
        at = indices.cpu()
        if bool(torch.isfinite(values[:, at]).any()):
            yield indices, at, chunk.samples


def _blocks(number: int, samples: int) -> Iterator[tuple[int, int]]:
    for start in range(0, number, samples):
        yield start, min(samples, number - start)
