"""Variational and Helmholtz free energies at any temperature."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..checking import checked
from ..evidence.core.checks import check_density
from ..evidence.core.chunks import Chunk
from ..evidence.core.energies import drawn_discretes, energies
from ..evidence.core.execution import Execution
from ..evidence.estimators.ais import AIS
from ..evidence.estimators.exact import Exact
from ..evidence.estimators.importance_sampling import IS
from ..evidence.weights.narrower_guides import warn_narrower
from ..evidence.weights.unreached import warn_unreached
from ..programs import Program, inspect_program
from ..progress import Progress, listener, shows_progress
from .free_energies import FreeEnergy
from .normalisers import Normalisers, annealed, exact, of_weights, stack


@checked
@shows_progress("free energies")
def free_energy(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    temperatures: Sequence[float] | Tensor = (0.5, 1.0, 2.0),
    estimator: IS | AIS | Exact | None = None,
    num_samples: int | None = None,
    seed: int = 0,
    plate: str | None = None,
    chunk: Chunk | None = None,
    budget: int | None = None,
    progress: Progress = True,
) -> FreeEnergy:
    r"""F_q(T) = <E>_q - T S_q against F_p(T) = -T ln of the integral of p(x, z)^{1/T} over z, E = -ln p(x, z).

    F_q(T) - F_p(T) = T KL(q(z|x) ‖ p_T) >= 0, p_T proportional to p(x, z)^{1/T}: Gibbs, Bogoliubov and
    Feynman's inequality, of which the ELBO is the case T = 1 (F_q = -ELBO, F_p = -ln p(x)). The tempered
    likelihood p(z) p(x|z)^beta is another family: `tempered_likelihood`.

    <E>_q, S_q and F_q are means over K draws of the guide, without bias. F_p by

    - `IS`: weights p(x, z)^{1/T} / q(z|x) of the same draws. ln of their mean is low, F_p high, the gap
      low, in expectation; the gap's error is that of the paired draws. Its weights have heavy tails where p_T
      is wider than q: k-hat tells.
    - `AIS`: chains to p_T, a run for each T; the same direction.
    - `Exact`: all latents discrete: enumeration. One or two continuous ones: quadrature. More of them
      and a quadratic energy (a linear-Gaussian program, hierarchical or not): the Gaussian integral.

    The power is of the density of z in its own coordinates: T != 1 asks what the measure is, and it is the one
    in which the program states its densities. Enumerated sites are drawn by the guide here.
    Source: Neal and Hinton (1998), https://doi.org/10.1007/978-94-011-5014-9_12.

    Args:
        model, guide, x, *context, seed, plate, chunk, budget, progress: as in `log_weights`.
        temperatures: T > 0, rising.
        estimator: of F_p; default `IS(num_samples)`.
        num_samples: K draws of the guide; default: those of IS, else 1000.

    Raises:
        ValueError: temperatures that are not positive, finite and rising; as `log_weights`; discrete latents
            that the guide does not draw; what `AIS` or `Exact` refuses; num_samples that differ from IS's.
    """
    grid = check_temperatures(temperatures)
    if estimator is None:
        estimator = IS(1000 if num_samples is None else num_samples)
    if not isinstance(estimator, IS | AIS | Exact):
        raise ValueError(f"expected pv.IS, pv.AIS or pv.Exact to give F_p, got {type(estimator).__name__}")
    if isinstance(estimator, IS):
        if num_samples not in (None, estimator.num_samples):
            raise ValueError(
                f"expected num_samples to be that of IS({estimator.num_samples}), whose draws serve both, got "
                f"{num_samples}"
            )
        num_samples = estimator.num_samples
    num_samples = 1000 if num_samples is None else num_samples
    program = inspect_program(model, guide, x, *context, plate=plate)
    check_density(program)
    if getattr(estimator, "draws_from_guide", True):
        warn_narrower(program)
    execution = Execution(seed, budget, progress=listener(progress))
    rest = None  # refusals come before the work
    if isinstance(estimator, Exact):
        drawn_discretes(program)
        rest = exact(program, estimator, grid, seed=seed)
    elif isinstance(estimator, AIS):
        rest = annealed(program, estimator, grid, execution)
    by_draws = _by_draws(
        program,
        grid,
        rest is None,
        num_samples,
        execution if rest is None else replace(execution, progress=None),
        chunk,
    )
    return _assemble(grid, estimator, num_samples, program.measure.kind, rest, *by_draws)


def check_temperatures(temperatures: Sequence[float] | Tensor) -> Tensor:
    """The temperatures `[T]`, float64.

    Raises:
        ValueError: unless they are positive, finite and rising; at least one.
    """
    values = check_rising(temperatures)
    if values[-1] == math.inf:
        raise ValueError("expected finite temperatures, got T = inf: p(x, z)^0 = 1 has no integral")
    return torch.tensor(values, dtype=torch.float64, device="cpu")


def check_rising(temperatures: Sequence[float] | Tensor) -> list[float]:
    """The temperatures as numbers.

    Raises:
        ValueError: unless they are positive and rising; at least one.
    """
    values = [float(t) for t in temperatures]
    if not values:
        raise ValueError("expected at least one temperature, got none; try (0.5, 1.0, 2.0)")
    for i, t in enumerate(values):
        if not t > 0:  # NaN too
            raise ValueError(
                f"expected temperatures > 0, got T = {t:g} at position {i}"
                + (": there beta = 1/T is infinite; try a small positive one" if t == 0 else "")
            )
    if not all(a < b for a, b in pairwise(values)):
        raise ValueError(f"expected temperatures that rise, got {values}; try sorted(set(temperatures))")
    return values


def _by_draws(
    program: Program, grid: Tensor, weigh: bool, num_samples: int, execution: Execution, chunk: Chunk | None
) -> tuple[Tensor, Normalisers | None]:
    """Moments of the guide's draws, one a row `[rows, N]`, and IS where it is asked for.

    Rows: <E>, S, their variances; F_q and its variances, T each; for IS the variances of the gap, T.
    """
    t = grid.unsqueeze(-1)
    moments, rows, log_evidence = [], [], []
    for block in energies(program, num_samples, execution, chunk=chunk):
        log_joint, log_guide = block.log_joint.cpu(), block.log_guide.cpu()
        k = len(log_joint)
        free = torch.stack([-log_joint - v * -log_guide for v in grid])  # F_q, draw by draw: [T, K, n]
        found = [-log_joint.mean(0), -log_guide.mean(0), _var(-log_joint), _var(-log_guide)]
        found += [*free.mean(1), *(_var(f) for f in free)]
        if weigh:
            log_evidence.append((log_joint - log_guide).logsumexp(0) - math.log(k))
            own = [of_weights(log_joint / v - log_guide, -log_joint, float(v)) for v in grid]
            rows.append(stack(own, 0))
            # T (ln mean e^l - mean l): what draw k adds to it, to first order.
            lw = torch.stack([log_joint / v - log_guide for v in grid])
            relative = (lw - lw.logsumexp(1, keepdim=True) + math.log(k)).exp()
            influence = (relative - 1) - (lw - lw.mean(1, keepdim=True))
            found += [*(t.square() * torch.stack([_var(f) for f in influence]))]
        moments.append(torch.stack(found))
    if weigh:
        plain = drawn_discretes(program)
        warn_unreached(plain, torch.cat(log_evidence), num_samples, execution.seed, execution.budget)
    return torch.cat(moments, -1), stack(rows, -1) if weigh else None


def _var(values: Tensor) -> Tensor:
    """Standard error of the mean over draws."""
    k = len(values)
    return values.var(0) / k if k > 1 else torch.full_like(values[0], torch.nan)


def _assemble(
    grid: Tensor,
    estimator: IS | AIS | Exact,
    num_samples: int,
    measure: str,
    rest: Normalisers | None,
    moments: Tensor,
    weighted: Normalisers | None,
) -> FreeEnergy:
    count, t = len(grid), grid.unsqueeze(-1)
    found = rest or weighted
    assert found is not None
    energy, entropy, energy_var, entropy_var = moments[:4]
    variational, variational_var = moments[4 : 4 + count], moments[4 + count : 4 + 2 * count]
    helmholtz, helmholtz_var = -t * found.value, t.square() * found.variance
    gap_var = moments[4 + 2 * count :] if rest is None else variational_var + helmholtz_var
    variances = {
        "energy": energy_var,
        "entropy": entropy_var,
        "variational": variational_var,
        "helmholtz": helmholtz_var,
        "gap": gap_var,
    }
    if found.energy_error is not None and found.energy_variance_error is not None:
        variances["equilibrium_energy"] = found.energy_error
        variances["heat_capacity"] = found.energy_variance_error / t.pow(4)
    if found.entropy_error is not None:
        variances["equilibrium_entropy"] = found.entropy_error
    return FreeEnergy(
        temperatures=grid,
        energy=energy,
        entropy=entropy,
        variational=variational,
        helmholtz=helmholtz,
        gap=variational - helmholtz,
        variances=variances,
        bias=-t * found.bias,
        direction="~" if isinstance(estimator, Exact) else ">=",
        estimator=estimator.name,
        num_samples=num_samples,
        equilibrium_energy=found.energy,
        equilibrium_entropy=found.entropy,
        heat_capacity=None if found.energy_variance is None else found.energy_variance / t.square(),
        ess=found.ess,
        khat=found.khat,
        details={"measure": measure, **(found.details or {"method": f"IS, K = {num_samples}"})},
    )
