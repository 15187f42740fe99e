"""Refuses objectives that would be silently wrong for a program."""

from __future__ import annotations

from typing import Any

from pyro.infer import RenyiELBO, TraceEnum_ELBO, TraceMeanField_ELBO

from ..programs import Program
from ..programs.checks.dependencies import mean_field_breaches
from ..programs.checks.validity import (
    check_pathwise,
    check_scales,
    deltas_with_density,
    masked_laws_enumerated,
    not_reparameterised,
    scaled_sites,
)
from .beta import BetaELBO
from .classified import Classified
from .free_bits import FreeBits
from .objective import ParticleObjective
from .phases import PhaseObjective
from .renyi import Renyi


def check_objective(objective: Any, program: Program) -> None:
    """Refuses an objective that would be silently wrong for this program.

    Raises:
        ValueError: `TraceMeanField_ELBO` with a guide that breaks its condition, is not
            reparameterised or has Delta sites with a log_density; a scale on one side only;
            `RenyiELBO` under subsampling or scales;
            enumerated sites under an objective that does not sum them out; programs without
            weights, or without pathwise gradients of them, under `IWAE`, `Renyi`, `STL` and `DReG`;
            unnormalised densities under anything but `ContrastiveDivergence`, `PersistentCD` and
            `ParallelTempering`, and those without an energy under these; a classifier of another program in
            `Classified`.
    """
    name = type(objective).__name__
    check_scales(program)
    check_pathwise(program)
    wrapped = isinstance(objective, BetaELBO)
    while isinstance(objective, BetaELBO | FreeBits):
        objective = objective.base
    if wrapped and isinstance(objective, Renyi):
        raise ValueError("expected Renyi without a KL weight, got BetaELBO around it; try IWAE")
    if program.enumerated and not isinstance(objective, TraceEnum_ELBO):
        raise ValueError(f"expected TraceEnum_ELBO for a program with enumerated sites, got {name}")
    if program.enumerated:
        refuse_masked_laws(name, masked_laws_enumerated(program))
    if isinstance(objective, Classified):
        objective.check(program)
    if isinstance(objective, PhaseObjective):
        objective.check(program)
        return
    if program.declaration.density == "unnormalised":
        raise ValueError(
            f"expected a normalised density for {name}, got a program declared density='unnormalised', whose ln f(x) "
            "grows without bound where ln Z is not held against it; try ContrastiveDivergence or PersistentCD"
        )
    if isinstance(objective, ParticleObjective):
        objective.check(program)
        return
    scores = not_reparameterised(program)
    if isinstance(objective, TraceMeanField_ELBO):
        if scores:
            raise ValueError(
                f"expected a reparameterised guide for {name}, got {scores} without rsample; try Trace_ELBO"
            )
        refuse_deltas(name, deltas_with_density(program))
        refuse_breaches(name, mean_field_breaches(program))
    elif isinstance(objective, RenyiELBO):
        if scores:
            raise ValueError(f"expected a reparameterised guide for {name}, got {scores} without rsample")
        scaled = scaled_sites(program)
        if scaled:
            raise ValueError(
                f"expected unit scales for {name}, got scaled sites {scaled}: Pyro puts the scale inside the "
                "log-sum-exp, where the result is no bound; try plate(..., len(x)) without subsample_size"
            )


def refuse_breaches(name: str, breaches: list[tuple[str, str]]) -> None:
    """Refuses pairs (z, parent) that break the mean-field condition of the objective of this name.

    Raises:
        ValueError: naming the first pair.
    """
    if breaches:
        z, parent = breaches[0]
        raise ValueError(
            f"expected a guide that meets the mean-field condition of {name}, got one in which {parent!r} is "
            f"drawn from {z!r} while the model draws {z!r} from {parent!r}: its KL for {z!r} would hold "
            f"{parent!r} fixed, and the loss would be wrong without a sign; try Trace_ELBO, or write the "
            "guide top-down"
        )


def refuse_deltas(name: str, carried: list[str]) -> None:
    """Refuses a closed-form KL of Deltas that have a density.

    Raises:
        ValueError: naming the sites.
    """
    if carried:
        raise ValueError(
            f"expected a guide whose Delta sites have no log_density for {name}, got one at {carried}: Pyro's KL "
            "of a Delta leaves it out, and the loss would be wrong without a sign; try Trace_ELBO"
        )


def refuse_masked_laws(name: str, masked: list[str]) -> None:
    """Refuses `.mask()` on latents that Pyro sums out.

    Raises:
        ValueError: naming the sites.
    """
    if masked:
        raise ValueError(
            f"expected enumerated latents without .mask() for {name}, got it at {masked}: Pyro sums 1 over their values"
            " where the mask leaves them out, and the loss would be off by ln C without a sign; try poutine.mask"
        )
