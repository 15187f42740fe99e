"""Samples that are run at once have the numbers that each has alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pyro.distributions as dist
from torch import Tensor

from ..checks.contract import base_of
from ..handlers.substitute import Substitute
from ..idioms.cached_draws import Held, held
from ..sites import Sites, sample_sites

SHARE = 2e-3  # of a log-weight: rounding of another order of sums stays below


class AloneError(Exception):
    """A sample cannot be run alone on the values that it has among others: shapes differ."""


def agree(program: Any, indices: Tensor, sites: Sites, samples: Iterable[int]) -> bool:
    """Whether some samples of a vectorised run have the log-weights that they have when run alone.

    Args:
        program: of `inspect_program`.
        indices: the data of the run.
        sites: of the run, with its traces.
        samples: which to run again, at their own values.

    Raises:
        AloneError: a sample that cannot be run alone.
    """
    log_weights = sites.log_weights()
    guide_trace, _ = sites.traces or (None, None)
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
    parts = {
        k: {
            # Enumeration dims lie left of the particle dim, which then has to stay.
            name: _of_sample(site, k, -1 - program.max_plate_nesting, keep=program.enumerated)
            for name, site in drawn.items()
        }
        for k in samples
    }
    for k, values in parts.items():
        given = replace(lone, guide=Substitute(values)(program.guide))
        try:
            alone = given._run(indices, None).log_weights()[0]
        except Exception as error:
            raise AloneError from error
        same = (alone - log_weights[k]).abs() <= SHARE * alone.abs().clamp(min=1.0)
        same |= (alone == log_weights[k]) | (alone.isnan() & log_weights[k].isnan())
        if not same.all():
            return False
    return True


def _of_sample(site: dict[str, Any], k: int, particle_dim: int, keep: bool) -> Held:
    dim = particle_dim - site["fn"].event_dim

    def pick(value: Tensor) -> Tensor:
        if value.dim() < -dim:
            return value
        at = k if value.size(dim) > 1 else 0
        return value.narrow(dim, at, 1) if keep else value.select(dim, at)

    return held(site, pick)
