"""Objectives as tensors: what Pyro's ELBOs compute, without reading numbers back on the way.

Pyro's own losses call `.item()`, which a tracer cannot follow and a GPU has to wait for. The
values and gradients here are theirs, given the same noise (`tests/test_compiled.py`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from pyro.distributions.util import scale_and_mask
from pyro.infer import (
    JitTrace_ELBO,
    JitTraceEnum_ELBO,
    JitTraceMeanField_ELBO,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceMeanField_ELBO,
)
from pyro.infer.traceenum_elbo import _compute_dice_elbo
from pyro.infer.util import Dice, get_dependent_plate_dims, torch_sum
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..devices import as_tensor
from ..programs.handlers.scaling import scale_latents
from ..programs.sites import sample_sites
from .beta import BetaELBO
from .free_bits import FreeBits


def is_known(objective: Any) -> bool:
    """Whether `surrogate_and_value` knows an objective."""
    if isinstance(objective, BetaELBO):
        return is_known(objective.base)
    known = hasattr(objective, "surrogate_and_value") or isinstance(objective, FreeBits)
    return known or type(objective) in _PARTICLES or type(objective) is RenyiELBO


def surrogate_and_value(
    objective: Any,
    model: Callable[..., Any],
    guide: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
) -> tuple[Tensor, Tensor]:
    """(what is differentiated, what is reported), summed over the batch, in nats.

    Raises:
        NotImplementedError: for an objective, or a guide, of which this does not know how.
    """
    kwargs = kwargs or {}
    if hasattr(objective, "surrogate_and_value"):
        return objective.surrogate_and_value(model, guide, *args, **kwargs)
    if isinstance(objective, BetaELBO):
        scaled = scale_latents(model, objective.beta), scale_latents(guide, objective.beta)
        return surrogate_and_value(objective.base, *scaled, args, kwargs)
    if isinstance(objective, FreeBits):
        loss = objective.differentiable_loss(model, guide, *args, **kwargs)
        return loss, loss
    # Exact types: a subclass may compute something else.
    particle = _PARTICLES.get(type(objective))
    if particle is not None:
        loss = torch.zeros((), device="cpu")
        for model_trace, guide_trace in objective._get_traces(model, guide, args, kwargs):
            _require_pathwise(guide_trace)
            loss = loss + particle(model_trace, guide_trace) / objective.num_particles
        return loss, loss
    if type(objective) is RenyiELBO:
        loss = _renyi(objective, model, guide, args, kwargs)
        return loss, loss
    raise NotImplementedError(f"{type(objective).__name__} is not known to the tracer")


def _require_pathwise(guide_trace: Any) -> None:
    scores = [
        n
        for n, s in sample_sites(guide_trace)
        if not (s["is_observed"] or s["fn"].has_rsample or "_enumerate_dim" in s["infer"])
    ]
    if scores:
        raise NotImplementedError(f"guide sites {scores} have no pathwise gradient")


def _trace_elbo(model_trace: Any, guide_trace: Any) -> Tensor:
    return guide_trace.log_prob_sum() - model_trace.log_prob_sum()


def _mean_field(model_trace: Any, guide_trace: Any) -> Tensor:
    loss = torch.zeros((), device="cpu")
    for name, site in sample_sites(model_trace):
        if site["is_observed"]:
            loss = loss - site["log_prob_sum"]
            continue
        other = guide_trace.nodes[name]
        try:
            kl = torch.distributions.kl_divergence(other["fn"], site["fn"])
        except NotImplementedError:
            loss = loss + other["log_prob_sum"] - site["log_prob_sum"]
        else:
            loss = loss + scale_and_mask(kl, scale=other["scale"], mask=other["mask"]).sum()
    for name, site in sample_sites(guide_trace):
        if name not in model_trace.nodes:
            loss = loss + site["log_prob_sum"]
    return loss


class _NothingImpossible(TorchFunctionMode):
    """Pyro drops what has probability 0 in a sum over enumerated values, and asks for its number; a graph cannot.

    Such a term is 0 with or without; where it is 0 times infinity, the loss is nan and the step an eager one.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.all and sys._getframe(1).f_code is Dice.compute_expectation.__code__:
            return True
        return func(*args, **(kwargs or {}))


def _enumerated(model_trace: Any, guide_trace: Any) -> Tensor:
    with _NothingImpossible():
        elbo = _compute_dice_elbo(model_trace, guide_trace)
    return -as_tensor(elbo)


_PARTICLES: dict[type, Callable[[Any, Any], Tensor]] = {
    Trace_ELBO: _trace_elbo,
    TraceMeanField_ELBO: _mean_field,
    TraceEnum_ELBO: _enumerated,
}
_TWINS: dict[type, type] = {
    JitTrace_ELBO: Trace_ELBO,
    JitTraceMeanField_ELBO: TraceMeanField_ELBO,
    JitTraceEnum_ELBO: TraceEnum_ELBO,
}


def eager_twin(objective: Any) -> Any:
    """One of Pyro's objectives that compile by themselves (and freeze what they read), as the one that does not."""
    twin = _TWINS.get(type(objective))
    if twin is None:
        return objective
    copied: Any = object.__new__(twin)
    copied.__dict__.update(vars(objective))
    return copied


def _renyi(objective: Any, model: Any, guide: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    particles = []
    for model_trace, guide_trace in objective._get_traces(model, guide, args, kwargs):
        _require_pathwise(guide_trace)
        dims = get_dependent_plate_dims(model_trace.nodes.values())
        log_ratio = torch.zeros((), device="cpu")
        for sign, trace in ((1.0, model_trace), (-1.0, guide_trace)):
            for _, site in sample_sites(trace):
                log_ratio = log_ratio + sign * torch_sum(site["log_prob"], dims)
        particles.append(log_ratio)
    vectorised = objective.vectorize_particles and objective.num_particles > 1
    log_weights = particles[0] if vectorised else torch.stack(particles)
    power = 1.0 - objective.alpha
    bound = torch.logsumexp(power * log_weights, 0) - math.log(objective.num_particles)
    return -bound.sum() / power
