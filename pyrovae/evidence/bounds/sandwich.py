"""Bounds on both sides, on data simulated from the model (bidirectional Monte Carlo)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ...checking import checked
from ...programs import Program, inspect_program, seeded
from ...programs.generate.simulated import Simulated, simulate_pairs
from ...programs.idioms.adapting import conditioned_on
from ...programs.latents.densities import Densities
from ...progress import Progress, listener, shows_progress
from ..chains.annealed_path import check_num_temperatures
from ..chains.hmc import Point
from ..chains.tuned_chunks import Ticks, TunedChunk, chunks
from ..core.checks import check_density
from ..core.compile_when import Compile
from ..core.execution import Execution
from ..core.log_weights import iterate
from ..estimators.ais import AIS
from .bracket import Bracket, Sandwich


@checked
@shows_progress("sandwich")
def sandwich(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *like: Any,
    simulate: int = 200,
    ais: AIS = AIS(),  # noqa: B008
    temperatures: Sequence[int] = (),
    num_samples: int = 1000,
    seed: int = 0,
    plate: str | None = None,
    budget: int | None = None,
    compile: Compile = "auto",
    progress: Progress = True,
    given: Mapping[str, Tensor] | None = None,
) -> Sandwich:
    """Bidirectional Monte Carlo (Grosse et al. 2015, 2016; decoders: Wu et al. 2017).

    Draws (x, z) from the model; z is then an exact draw from p(z | x). AIS forward, from the
    prior or guide to the posterior, has E[w] = p(x), so ln mean w is a lower bound in
    expectation; AIS backward from z has E[w_rev] = 1/p(x), so -ln mean w_rev is an upper bound.
    All K backward chains of a datum leave from the one z, which costs tightness but not validity.
    Beside them the importance-weighted pair, whose upper half is ln (1/K)(w_post + sum_{k<K} w_q).
    https://arxiv.org/abs/1511.02543, https://arxiv.org/abs/1606.02275

    Args:
        model, guide: the pair.
        *like: an example `(x, *context)`: shapes, and contexts, which are used row by row in turn.
            Not needed for a model that declares `simulate=`, called as `simulate(num_data, *context)`
            and returning `(x, latents)`.
        simulate: N, how many data.
        ais: chains, start, leapfrog steps, temperatures.
        temperatures: several numbers of temperatures, for a curve; default: that of `ais`.
        num_samples: K of the importance-weighted bounds.
        seed, plate, budget, compile, progress, given: as in `evidence`; data are drawn from p(x | given).

    Raises:
        ValueError: N < 1, a program that AIS does not take, an unnormalised density, an observed
            site that does not map back to x.

    Example:
        >>> from pyrovae.models.ground_truths import linear_gaussian
        >>> pair = linear_gaussian(8, latent_dim=2)
        >>> found = sandwich(pair.model, pair.guide, pair.x, simulate=4, ais=AIS(5, 2), num_samples=50)
        >>> found.lower.shape == found.upper.shape
        True
    """
    efforts = sorted({*temperatures}) or [ais.num_temperatures]
    for t in efforts:
        check_num_temperatures(t)
    if ais.schedule is not None and efforts != [ais.num_temperatures]:
        raise ValueError("expected no fixed schedule together with several numbers of temperatures")
    model = conditioned_on(given, model, like, plate)
    drawn, program = simulated_program(model, guide, like, simulate, seed, plate)
    ais = AIS(efforts[-1], ais.num_chains, ais.start, ais.leapfrog, ais.schedule, ais.target_acceptance)
    results: dict[int, list[tuple[Tensor, Tensor]]] = {t: [] for t in efforts}
    acceptance: list[Tensor] = []
    execution = Execution(seed, budget, compile, listener(progress))
    ticks = Ticks(execution, 2 * simulate * ais.num_chains, sum(t - 1 for t in efforts))
    for chunk in chunks(program, ais, execution):
        for t in efforts:
            lower, upper, accepted = _bracket(chunk, t, drawn, seed, ticks)
            results[t].append((lower, upper))
            if t == efforts[-1]:
                acceptance.append(accepted)
    brackets = tuple(
        Bracket("AIS", t, *(torch.cat([r[i] for r in results[t]]).cpu() for i in (0, 1))) for t in efforts
    )
    return Sandwich(
        brackets,
        _importance(program, drawn, num_samples, replace(execution, progress=None)),
        drawn.args[0],
        drawn.latents,
        torch.cat(acceptance).cpu(),
        {
            "num_data": simulate,
            "seed": seed,
            "num_chains": ais.num_chains,
            "start": ais.start,
            "narrower": program.narrower,
            "measure": program.measure.kind,
        },
    )


def simulated_program(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    like: tuple[Any, ...],
    simulate: int,
    seed: int,
    plate: str | None,
) -> tuple[Simulated, Program]:
    """Pairs (x, z) drawn from the model, and the program on them.

    Raises:
        ValueError: as `sandwich`.
    """
    if len(like) > 1:  # which context is per datum shows on the example
        like = (like[0], *inspect_program(model, guide, *like, plate=plate).arguments.context)
    drawn = simulate_pairs(model, simulate, like, seed)
    program = inspect_program(model, guide, *drawn.args, plate=plate).in_parts()  # any guide bounds it
    check_density(program)
    if program.declaration.density == "unnormalised":
        raise ValueError(
            "expected a normalised density, got one declared 'unnormalised': no exact draws from it are at hand"
        )
    if program.arguments.calling != "sliced":
        raise ValueError(
            "expected a program whose data plate follows len(x), got one of a fixed size, or that reads rows of a "
            "table by their place; try pyro.plate(name, len(x)), and model(x, table) in place of table[i]"
        )
    return drawn, program


def _bracket(
    chunk: TunedChunk, num_temperatures: int, drawn: Simulated, seed: int, ticks: Ticks
) -> tuple[Tensor, Tensor, Tensor]:
    """(lower, upper, acceptance), `[n]`, of one chunk of data."""
    ais, n = chunk.ais, chunk.num_data
    betas = chunk.betas(num_temperatures)
    advance = ticks.of(n * ais.num_chains)
    device = chunk.indices.device
    with seeded(seed, "sandwich forward", chunk.number, num_temperatures, device=device):
        forward = chunk.anneal(betas, advance=advance)
    with seeded(seed, "sandwich reverse", chunk.number, num_temperatures, device=device):
        exact = Point.at(chunk.evaluate, chunk.densities.from_latents(drawn.latents))
        reverse = chunk.anneal(betas[::-1], exact, advance=advance)
    shift = math.log(ais.num_chains)
    lower = forward.log_weights.logsumexp(0) - shift
    upper = shift - reverse.log_weights.logsumexp(0)
    accepted = 0.5 * (forward.acceptance + reverse.acceptance).mean(0)
    return lower[:n], upper[:n], accepted[:n]


def _importance(program: Program, drawn: Simulated, num_samples: int, execution: Execution) -> Bracket:
    lower, upper = [], []
    for indices, weights in iterate(program, num_samples, execution):
        densities = Densities(program, indices, 1)
        with torch.no_grad():
            terms = densities.terms(densities.from_latents(drawn.latents), guide=True)
        assert terms.guide is not None
        exact = (terms.prior + terms.likelihood - terms.guide).double()
        lw = weights.double()
        lower.append(lw.logsumexp(0) - math.log(num_samples))
        upper.append(torch.cat([exact, lw[1:]]).logsumexp(0) - math.log(num_samples))
    return Bracket("IS", num_samples, torch.cat(lower).cpu(), torch.cat(upper).cpu())
