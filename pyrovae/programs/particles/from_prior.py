"""Draws of the prior, and a model's density in its two parts."""

from __future__ import annotations

from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.enum_messenger import EnumMessenger
from torch import Tensor

from ..handlers.substitute import Substitute
from ..inspection import PARTICLES, Program
from ..latents.unequal_totals import UnequalTotals
from ..sites import collect, sample_sites


def prior_weights(program: Program, indices: Tensor, num_samples: int, seed: int, *counters: int) -> Tensor:
    """ln p(x|z) of draws of the prior, `[K, n]`, nats; what is enumerated is summed out.

    Their mean weight is p(x) in expectation, whatever the guide is. `counters` tell this noise from other noise.
    """
    runs: list[int | None] = [num_samples] if program.vectorised else [None] * num_samples
    parts = []
    with program.quiet(seed, "prior", int(indices[0]), *counters):
        for k in runs:
            model = plated(program, program.model, k)
            with program.on(indices) as given:
                trace = poutine.trace(model).get_trace(*given)
            if program.enumerated:
                # Arguments of its own: a model that scales x in place would scale it twice.
                with program.on(indices) as given:
                    trace = scored(program, model, drawn_latents(trace), given)
            joint, prior = split_joint(program, trace, k)
            parts.append(joint - prior)
    return torch.cat(parts)[:, : len(indices)]


def plated(program: Program, fn: Any, num_samples: int | None) -> Any:
    """A model or guide that draws so many samples at once; None: one, without a particle plate."""
    if num_samples is None:
        return fn
    return pyro.plate(PARTICLES, num_samples, dim=-1 - program.max_plate_nesting)(fn)


def drawn_latents(trace: Any) -> dict[str, Tensor]:
    """Values of the latents that are not summed out."""
    return {
        name: site["value"]
        for name, site in sample_sites(trace)
        if not site["is_observed"] and site["infer"].get("enumerate") != "parallel"
    }


def scored(program: Program, model: Any, values: dict[str, Tensor], given: tuple[Any, ...]) -> Any:
    """Trace of a plated model with these values."""
    if program.enumerated:
        model = EnumMessenger()(UnequalTotals()(model))
    # Outermost: what enumerates must have seen a site before its value is set.
    return poutine.trace(Substitute(values)(model)).get_trace(*given)


def split_joint(program: Program, trace: Any, num_samples: int | None) -> tuple[Tensor, Tensor]:
    """ln p(x, z) and ln p(z) of a model's trace, `[K, n]` each; what is enumerated is summed out of both."""
    latents = trace.copy()
    for name, site in list(sample_sites(trace)):
        if site["is_observed"]:
            latents.remove_node(name)
    joint = log_density(program, trace, num_samples)
    # A program whose latents are all summed out has no site of its own here: a density of one.
    some = any(sample_sites(latents))
    return joint, log_density(program, latents, num_samples).expand_as(joint) if some else torch.zeros_like(
        joint
    )


def log_density(program: Program, trace: Any, num_samples: int | None) -> Tensor:
    """Sum of the log-densities of a trace's sites, `[K, n]`."""
    nothing = poutine.trace(lambda: None).get_trace()
    particles = None if num_samples is None else PARTICLES
    return collect(nothing, trace, plate=program.plate, particles=particles).log_weights()
