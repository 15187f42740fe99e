"""Samples that are run at once have the numbers that each has alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pyro.distributions as dist
from torch import Tensor

from ..checks.contract import data_frame
from ..handlers.substitute import Substitute
from ..idioms.cached_draws import Held, held
from ..latents.supports import base_of
from ..sites import Sites, sample_sites

DATA = 20  # of a run, on which a sample is run alone
SHARE = 2e-3  # of a log-weight: rounding of another order of sums stays below


class AloneError(Exception):
    """A sample cannot be run alone on the values that it has among others: shapes differ."""


def agree(program: Any, indices: Tensor, sites: Sites, samples: Iterable[int]) -> bool:
    """Whether some samples of a vectorised run have the log-weights that they have when run alone.

    Alone they are run on the first `DATA` of the run's data, where the program takes slices of these.

    Args:
        program: of `inspect_program`.
        indices: the data of the run.
        sites: of the run, with its traces.
        samples: which to run again, at their own values.

    Raises:
        AloneError: a sample that cannot be run alone.
    """
    log_weights = sites.log_weights()
    guide_trace, model_trace = sites.traces or (None, None)
    sliced = program.arguments.calling == "sliced" and program.full_size is None
    few = min(len(indices), DATA) if sliced else len(indices)
    data_dim = data_frame(model_trace, program.plate).dim
    lone = replace(program, vectorised=False)
    # Taken before other runs, which a flow without inverse would remember in place of this one.
    # Not to be set: what is summed out, and what the guide computes from other draws (a Delta's
    # density is zero a rounding error away from its own value).
    drawn = {
        name: site
        for name, site in sample_sites(guide_trace)
        if not site["is_observed"]
        and site["infer"].get("_enumerate_dim") is None
        and not isinstance(base_of(site["fn"]), dist.Delta)
    }
    dims = (-1 - program.max_plate_nesting, data_dim)
    parts = {
        k: {
            # Enumeration dims lie left of the particle dim, which then has to stay.
            name: _of_sample(site, k, dims, (len(indices), few), keep=program.enumerated)
            for name, site in drawn.items()
        }
        for k in samples
    }
    for k, values in parts.items():
        given = replace(lone, guide=Substitute(values)(program.guide))
        try:
            alone = given._run(indices[:few], None).log_weights()[0]
        except Exception as error:
            raise AloneError from error
        among = log_weights[k, :few]
        same = (alone - among).abs() <= SHARE * alone.abs().clamp(min=1.0)
        same |= (alone == among) | (alone.isnan() & among.isnan())
        if not same.all():
            return False
    return True


def _of_sample(
    site: dict[str, Any], k: int, dims: tuple[int, int], data: tuple[int, int], keep: bool
) -> Held:
    """Sample k of a site's draws, for the first of its data: `data` has their number in the run, and alone."""
    particle, datum = (dim - site["fn"].event_dim for dim in dims)
    size, few = data

    def pick(value: Tensor) -> Tensor:
        if few < size and value.dim() >= -datum and value.size(datum) == size:
            value = value.narrow(datum, 0, few)
        if value.dim() < -particle:
            return value
        at = k if value.size(particle) > 1 else 0
        return value.narrow(particle, at, 1) if keep else value.select(particle, at)

    return held(site, pick)
