"""Rounding as an error of estimates: measured per datum, kept beside each result."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ...programs import Program
from ...programs.particles.rounding import DRAWS, rounding
from ..core.chunks import choose_chunk
from ..core.estimator import PerDatum

KEY = "rounding"  # in a result's details: `[n]`, nats
# What a few draws have measured is an estimate; a certificate subtracts twice as much.
SAFETY = 2.0


def with_rounding(part: PerDatum, error: Tensor) -> PerDatum:
    """A result with the rounding error of its data, `[n]`, unless it states a numerical error of its own."""
    if "numerical_error" in part.details:
        return part
    return replace(part, details={**part.details, KEY: error.to(part.log_evidence.device)})


def rounding_of_all(program: Program, budget: int | None = None) -> Tensor:
    """Rounding errors of all data, `[N]`, float64, nats: see `programs.rounding`."""
    parts = program.arguments.chunks(choose_chunk(program, DRAWS, budget).data)
    return torch.cat([rounding(program, indices) for indices in parts])
