"""ln of the integral of p(x, z)^{1/T} over z: by importance, annealed, or exact."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from ..evidence.chains.tuned_chunks import Ticks, chunks
from ..evidence.core.execution import Execution
from ..evidence.estimators.ais import AIS
from ..evidence.estimators.exact import PAIRS, Exact
from ..evidence.estimators.settled import refuse_unsettled
from ..evidence.weights.delete_one import is_variance, jackknife_shift
from ..evidence.weights.diagnostics import effective_sample_size, pareto_khat
from ..evidence.weights.moments import entropy_of_weights, weighted_moments
from ..programs import Program, seeded
from ..programs.latents.joint import Joint
from .quadratic import quadratic_log_integrals


@dataclass(frozen=True)
class Normalisers:
    """Per temperature and datum, `[T, N]`, float64.

    Attributes:
        value: ln of the integral of p(x, z)^{1/T} dz, nats.
        variance: its Monte-Carlo variance; 0 where exact.
        bias: estimated bias of the value; 0 where exact.
        energy, energy_variance: mean and variance of E = -ln p(x, z) under p_T; None where not taken.
        energy_error, energy_variance_error: Monte-Carlo variances of both; None where they are not taken.
        entropy, entropy_error: of p_T, in nats, and its Monte-Carlo variance; None where they are not taken.
        ess, khat: of the weights; None where there are none.
        details: acceptance, numerical errors, the method in words.
    """

    value: Tensor
    variance: Tensor
    bias: Tensor
    energy: Tensor | None = None
    energy_variance: Tensor | None = None
    ess: Tensor | None = None
    khat: Tensor | None = None
    details: dict[str, Any] | None = None
    energy_error: Tensor | None = None
    energy_variance_error: Tensor | None = None
    entropy: Tensor | None = None
    entropy_error: Tensor | None = None


def of_weights(log_weights: Tensor, energy: Tensor, temperature: float) -> Normalisers:
    """Results from proper log-weights for p(x, z)^{1/T} `[K, n]`, and the energies of the draws; fields are `[n]`."""
    k = len(log_weights)
    total = log_weights.logsumexp(0)
    ess = effective_sample_size(log_weights)
    energies = weighted_moments(log_weights, energy)
    entropy, entropy_error = entropy_of_weights(log_weights, energy, temperature)
    return Normalisers(
        total - math.log(k),
        is_variance(log_weights),
        -jackknife_shift(log_weights),
        energies.mean,
        energies.variance,
        ess,
        pareto_khat(log_weights),
        energy_error=energies.mean_error,
        energy_variance_error=energies.variance_error,
        entropy=entropy,
        entropy_error=entropy_error,
    )


def stack(rows: list[Normalisers], dim: int) -> Normalisers:
    """Several `[n]` into one `[T, n]` (dim 0), or chunks of data put together (dim 1)."""
    join = torch.stack if dim == 0 else torch.cat
    names = [f.name for f in fields(Normalisers) if f.name != "details"]
    columns = {n: [getattr(r, n) for r in rows] for n in names}
    found: dict[str, Any] = {
        n: None if any(v is None for v in column) else join([v.cpu() for v in column], dim)
        for n, column in columns.items()
    }
    return Normalisers(**found, details=rows[0].details)


def annealed(
    program: Program,
    ais: AIS,
    temperatures: Tensor,
    execution: Execution,
) -> Normalisers:
    """AIS from the guide (or prior) to p(x, z)^{1/T}, a run with a pilot of its own for each T."""
    rows, acceptance = [], []
    pairs = len(temperatures) * program.arguments.num_data * ais.num_chains
    ticks = Ticks(execution, pairs, ais.num_temperatures - 1)
    for i, temperature in enumerate(temperatures.tolist()):
        parts, accepted = [], []
        for chunk in chunks(program, ais, execution, temperature=temperature):
            with seeded(execution.seed, "free energy", chunk.number, i, device=program.arguments.x.device):
                run = chunk.anneal(
                    chunk.betas(ais.num_temperatures),
                    # The states at beta = 1 are moved there too: their energies are taken.
                    observe=lambda t, point, lw: None,
                    advance=ticks.of(chunk.num_data * ais.num_chains),
                )
                with torch.no_grad():
                    terms = chunk.densities.terms(run.point.u)
            energy = (terms.log_jacobian - terms.prior - terms.likelihood).double()
            n = chunk.num_data
            parts.append(of_weights(run.log_weights[:, :n], energy[:, :n], temperature))
            accepted.append(run.acceptance[:, :n].mean(0).cpu())
        rows.append(stack(parts, -1))
        acceptance.append(torch.cat(accepted))
    found = stack(rows, 0)
    details = {"method": f"AIS, {ais.num_temperatures} temperatures", "acceptance": torch.stack(acceptance)}
    return Normalisers(**{**vars(found), "details": details})


def exact(program: Program, method: Exact, temperatures: Tensor, *, seed: int) -> Normalisers:
    """Enumeration, quadrature in one or two dims, or the Gaussian integral of a quadratic energy.

    Raises:
        ValueError: where none applies, or an integral does not settle (p^{1/T} may have none for T > 1).
    """
    args = program.arguments
    with program.quiet():
        with seeded(seed, "exact", device=args.x.device):
            joint = Joint(program)
        if joint.dim <= 2:
            values, errors, method_name = _integrated(joint, method, temperatures, seed)
        else:
            if joint.discrete:
                raise ValueError(
                    f"expected at most 2 continuous latent dims beside the discrete {list(joint.discrete)}, got "
                    f"{joint.dim}; try pv.IS"
                )
            chunks_of = args.chunks(max(1, PAIRS // (joint.dim + 32) ** 2))
            found = [quadratic_log_integrals(program, rows, temperatures, seed) for rows in chunks_of]
            values = torch.cat([v[:, : len(r)] for (v, _), r in zip(found, chunks_of, strict=True)], 1)
            errors = torch.cat([e[: len(r)] for (_, e), r in zip(found, chunks_of, strict=True)])
            errors, method_name = errors.expand_as(values), f"Gaussian integral, {joint.dim} latent dims"
    zero = torch.zeros_like(values).cpu()
    return Normalisers(
        values.cpu(), zero, zero, details={"method": method_name, "numerical_error": errors.cpu()}
    )


def _integrated(joint: Joint, method: Exact, temperatures: Tensor, seed: int) -> tuple[Tensor, Tensor, str]:
    args = joint.program.arguments
    values, errors, most = [], [], 0
    rows = max(1, PAIRS // 33**2) if joint.dim else PAIRS
    for temperature in temperatures.tolist():
        parts = []
        for i, indices in enumerate(args.chunks(rows)):
            with seeded(seed, "exact", i, device=args.x.device):
                found = method.integral(joint, indices, temperature)
            refuse_unsettled(found, indices, method.tolerance, f" at T = {temperature:g}")
            parts.append(found)
            most = max(most, found.nodes)
        values.append(torch.cat([v.value for v in parts]))
        errors.append(torch.cat([v.error for v in parts]))
    name = (
        f"quadrature, at most {most:,} nodes" if joint.dim else f"enumeration of {', '.join(joint.discrete)}"
    )
    return torch.stack(values), torch.stack(errors), name
