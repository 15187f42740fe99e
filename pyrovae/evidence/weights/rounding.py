"""Rounding as an error of estimates: measured per datum, kept beside each result."""

from __future__ import annotations

from dataclasses import replace

import torch

from ...programs import Program
from ...programs.particles.rounding import DRAWS, Rounding, rounding
from ..core.chunks import choose_chunk
from ..core.estimator import PerDatum

KEY = "rounding"  # in a result's details: `[n]`, nats
# What a few draws have measured is an estimate; a certificate subtracts twice as much.
SAFETY = 2.0


def with_rounding(part: PerDatum, found: Rounding) -> PerDatum:
    """A result with the rounding error of its data, `[n]`, unless it states a numerical error of its own.

    That of a mean of log-weights where the result has no weights (ELBO), else that of the ln of their mean.
    """
    if "numerical_error" in part.details:
        return part
    error = found.of_draws if part.ess is None else found.of_mean
    return replace(part, details={**part.details, KEY: error.to(part.log_evidence.device)})


def rounding_of_all(program: Program, budget: int | None = None) -> Rounding:
    """Rounding errors of all data, `[N]`: see `programs.rounding`."""
    parts = program.arguments.chunks(choose_chunk(program, DRAWS, budget).data)
    found = [rounding(program, indices) for indices in parts]
    return Rounding(torch.cat([r.of_draws for r in found]), torch.cat([r.of_mean for r in found]))
