"""Where the ELBO loses its nats: approximation and amortisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pyro
import torch
from torch import Tensor

from ..programs import Program, inspect_program, module_mode, seeded
from ..programs.densities import Densities
from ..programs.local_guides import LocalGuide, conditional_sites, refuse
from ..programs.memory import bytes_per_pair
from .elbo import ELBO
from .estimators import ProgramEstimator, WeightEstimator
from .evidence import evidence
from .gap_parts import Gaps
from .importance import IS
from .local import LocalFit, LocalFlow
from .local_steps import LocalSteps
from .log_weights import BUDGET, check_density, check_num_samples, draw, pairs_in
from .result import Estimate
from .tuned import BACKWARD

CHECKED = 128  # draws per datum that say whether the optimised guide is better than the amortised one
START = 512  # draws per datum that a flow starts at


def gaps(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    estimators: Sequence[WeightEstimator | ProgramEstimator] = (IS(5000),),
    fit: LocalFit = LocalFit(),  # noqa: B008 - frozen
    flow: bool = True,
    num_samples: int = 1000,
    seed: int = 0,
    plate: str | None = None,
    budget: int | None = None,
    compile: bool = False,
    progress: Callable[[int, int], None] | None = None,
    label: str | None = None,
) -> Gaps:
    """ln p(x) - ELBO(q_phi) as approximation gap + amortisation gap, datum by datum (Cremer et al. 2018).

        amortisation  = ELBO(q*) - ELBO(q_phi)    what a guide of one's own for each datum would win
        approximation = ln p(x) - ELBO(q*)        what the guide's family cannot express

    q* is the best member of the guide's own families for this datum. It is found by optimising their
    parameters, started at the amortised ones, with fresh draws at every step; a datum for which that did not
    help keeps the amortised guide. A richer family (`LocalFlow`, on all latents together) then shows how
    much of the approximation gap a better family would win. All ELBOs are of draws made after, of noise
    that no optimisation has seen. https://arxiv.org/abs/1801.03558

    Directions: q* is at most as good as the best member, so the amortisation gap is a lower bound. The
    evidence is that of the highest lower bound (see `Gaps.evidence`), so the total is one too; their
    difference, the approximation gap, has no direction.

    Where a guide site depends on other draws (hierarchies), offsets are added to its parameters and the
    dependence itself stays amortised: there the amortisation gap is a lower bound for this reason as well.

    Args:
        model, guide, x, *context, seed, plate, budget, label: as in `evidence`.
        estimators: of ln p(x); the best of them serves, or importance sampling from the optimised guides.
        fit: steps, draws a step and learning rate.
        flow: also optimise the richer family.
        num_samples: draws per datum of each ELBO.
        compile: gradients and log-weights as compiled graphs, one for all chunks.
        progress: called with (done, total) optimisation steps.

    Raises:
        ValueError: a guide's family without known parameters or pathwise gradients (it is named); discrete
            latents; a program that does not broadcast; more than 512 latent dims with flow=True; as `evidence`.
    """
    check_num_samples(num_samples)
    program = inspect_program(model, guide, x, *context, plate=plate)
    check_density(program)
    refuse(program)
    LocalGuide(program, program.arguments.chunks(1)[0])  # refuses a family before anything is computed
    others = [e for e in estimators if e.name != "ELBO"]
    first = evidence(
        model,
        guide,
        x,
        *context,
        estimators=[ELBO(num_samples), *others],
        seed=seed,
        plate=plate,
        budget=budget,
        compile=compile,
        label=label,
    )
    chunks = program.arguments.chunks(_rows(program, fit, budget))
    total = len(chunks) * fit.steps * (1 + flow)
    done = 0

    def advance() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    steps = LocalSteps(fit.num_particles, compile)
    own: list[Tensor] = []
    rich: list[Tensor] = []
    kept = 0
    for i, indices in enumerate(chunks):
        local = LocalGuide(program, indices)
        kept += _optimise(local, fit, steps, seed, i, advance)
        own.append(_weights(local, num_samples, (seed, i), budget))
        if flow:
            rich.append(_flow_weights(local, fit, steps, num_samples, (seed, i), advance, budget))
    parts = {"local": torch.cat(own, 1)} | ({"flow": torch.cat(rich, 1)} if flow else {})
    elbos = {"amortised": first["ELBO"]}
    bounds = [e for e in first.values() if e.name != "ELBO"]
    for name, lw in parts.items():
        elbos[name] = replace(_estimate(ELBO(), lw), name=f"ELBO, {name}")
        bounds.append(replace(_estimate(IS(num_samples), lw), name=f"IS, {name}"))
    attributes = first.attributes | {"steps": fit.steps, "num_particles": fit.num_particles, "kept": kept}
    return Gaps(
        evidence=_best(bounds),
        elbo=elbos["amortised"],
        elbo_local=elbos["local"],
        elbo_flow=elbos.get("flow"),
        bounds=tuple(bounds),
        conditional=tuple(conditional_sites(program)),
        attributes=attributes,
    )


def _best(bounds: Sequence[Estimate]) -> Estimate:
    """Exact where it is; else the highest mean among lower bounds; else the first."""
    exact = [e for e in bounds if e.name == "Exact"]
    lower = [e for e in bounds if e.direction == "<="]
    return exact[0] if exact else max(lower, key=lambda e: e.log_evidence, default=bounds[0])


def _estimate(estimator: WeightEstimator, lw: Tensor) -> Estimate:
    part = estimator.estimate(lw)
    return Estimate(
        estimator.name,
        estimator.direction,
        len(lw),
        part.log_evidence.cpu(),
        part.variance.cpu(),
        part.bias.cpu(),
        None if part.ess is None else part.ess.cpu(),
        part.khat,
    )


def _rows(program: Program, fit: LocalFit, budget: int | None) -> int:
    args = program.arguments
    if args.calling != "sliced":
        return args.num_data
    size = budget or BUDGET.get(args.x.device.type, BUDGET["cpu"])
    if size < 1:
        raise ValueError(f"expected a budget of at least one byte, got {size}")
    return max(1, min(args.num_data, size // (BACKWARD * bytes_per_pair(program) * fit.num_particles)))


def _optimise(
    local: LocalGuide,
    fit: LocalFit,
    steps: LocalSteps,
    seed: int,
    chunk: int,
    advance: Callable[[], None],
) -> int:
    """Optimises in place; returns how many data were put back to the amortised guide."""
    program, device = local.program, local.indices.device
    with (
        module_mode(program.model, program.guide, training=False),
        pyro.validation_enabled(False),
        seeded(seed, "gaps own", chunk, device=device),
    ):
        fit.minimise(local.leaves, steps.own(local), advance)
    # Both on the same noise, which neither was optimised on.
    before = draw(local.given, local.indices, CHECKED, seed, "gaps check", chunk).double().mean(0)
    after = draw(program, local.indices, CHECKED, seed, "gaps check", chunk).double().mean(0)
    worse = ~(after >= before)
    rows = torch.zeros(local.rows, dtype=torch.bool, device=device)
    rows[: len(worse)] = worse
    local.reset(rows)
    return int(worse.sum())


def _weights(local: LocalGuide, num_samples: int, seed: tuple[int, int], budget: int | None) -> Tensor:
    size = max(1, min(num_samples, pairs_in(local.given, budget) // local.rows))
    program, stream = local.program, "gaps own draws"
    return torch.cat(
        [
            draw(program, local.indices, min(size, num_samples - at), seed[0], stream, seed[1], at).double()
            for at in range(0, num_samples, size)
        ]
    )


def _flow_weights(
    local: LocalGuide,
    fit: LocalFit,
    steps: LocalSteps,
    num_samples: int,
    seed: tuple[int, int],
    advance: Callable[[], None],
    budget: int | None,
) -> Tensor:
    """Log-weights `[K, n]` of the richer family, optimised from the moments of the guide's own."""
    device, n = local.indices.device, len(local.indices)
    with seeded(seed[0], "gaps flow", seed[1], device=device):
        wide = Densities(local.program, local.indices, START)
        flow = LocalFlow(wide.initial("guide", density=False).detach())
        fit.minimise(flow.leaves, steps.flow(flow, local.program, local.indices), advance)
    size = max(1, min(num_samples, pairs_in(local.given, budget) // local.rows))
    parts = []
    for at in range(0, num_samples, size):
        k = min(size, num_samples - at)
        with torch.no_grad(), seeded(seed[0], "gaps flow draws", seed[1], at, device=device):
            u, log_q = flow.draw(k, antithetic=False)
            terms = Densities(local.program, local.indices, k).terms(u)
        parts.append((terms.prior + terms.likelihood - log_q)[:, :n].double())
    return torch.cat(parts)
