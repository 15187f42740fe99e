"""Is an objective valid for a program? What Pyro would compute wrongly in silence is refused here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from ...devices import as_tensor, in_use
from ..inspection import Program
from ..latents.supports import base_of
from ..modes import module_mode
from ..seeds import seeded
from ..sites import sample_sites


def check_scales(program: Program) -> None:
    """Refuses latents that are scaled on one side only.

    Raises:
        ValueError: the objective would not be E_q[...] of anything; plates that subsample in
            the model but not in the guide are the usual cause.
    """
    guide_trace, model_trace = _traces(program)
    guide_sites = dict(sample_sites(guide_trace))
    for name, site in sample_sites(model_trace):
        other = guide_sites.get(name)
        if other is None or site["is_observed"]:
            continue
        here, there = as_tensor(site["scale"]), as_tensor(other["scale"])
        if not torch.allclose(here.double(), there.double()):
            raise ValueError(
                f"expected the same scale of latent {name!r} in model and guide, got {_show(here)} in the model "
                f"and {_show(there)} in the guide; put poutine.scale and subsampled plates around both"
            )


def scaled_sites(program: Program) -> list[str]:
    """Names of the model's sites whose scale is not 1."""
    _, model_trace = _traces(program)
    return [n for n, s in sample_sites(model_trace) if not bool((as_tensor(s["scale"]) == 1).all())]


def not_reparameterised(program: Program) -> list[str]:
    """Guide sites without pathwise gradients (Pyro's ELBOs then need score-function terms)."""
    guide_trace, _ = _traces(program)
    return [n for n, s in sample_sites(guide_trace) if not s["is_observed"] and not s["fn"].has_rsample]


def closed_form_kl(program: Program) -> list[str]:
    """Latent sites whose KL(q || p) has a closed form here; elsewhere `TraceMeanField_ELBO` samples it.

    Not those of a Delta, of which Pyro's KL is -ln p at the draw: it leaves out the Delta's log_density, by which
    a draw of auxiliary sites carries its Jacobian.
    """
    guide_trace, model_trace = _traces(program)
    found = []
    for name, site in sample_sites(model_trace):
        if not site["is_observed"] and name in guide_trace.nodes:
            if isinstance(base_of(guide_trace.nodes[name]["fn"]), dist.Delta):
                continue
            try:
                torch.distributions.kl_divergence(guide_trace.nodes[name]["fn"], site["fn"])
            except NotImplementedError:
                continue
            found.append(name)
    return found


def deltas_with_density(program: Program) -> list[str]:
    """Guide sites that are a Delta with a log_density other than 0."""
    return deltas_in(_traces(program)[0])


def deltas_in(guide_trace: Any) -> list[str]:
    """The same, of a trace."""
    bases = {n: base_of(s["fn"]) for n, s in sample_sites(guide_trace)}
    return [n for n, fn in bases.items() if isinstance(fn, dist.Delta) and bool((fn.log_density != 0).any())]


def masked_laws_enumerated(program: Program) -> list[str]:
    """Enumerated latents whose own law is masked by `.mask()`: Pyro sums 1 over their C values."""
    return masked_laws_in(*_traces(program))


def masked_laws_in(*traces: Any) -> list[str]:
    """The same, of traces."""
    return [
        n
        for trace in traces
        for n, s in sample_sites(trace)
        if s["infer"].get("enumerate") == "parallel" and not s["is_observed"] and not _counts_whole(s["fn"])
    ]


def _counts_whole(fn: Any) -> bool:
    """Whether the masks of `.mask()` are sure to leave nothing out: a tensor's values may be others for other data."""
    while isinstance(fn, dist.MaskedDistribution | dist.Independent):
        if isinstance(fn, dist.MaskedDistribution) and fn._mask is not True:
            return False
        fn = fn.base_dist
    return True


def check_pathwise(program: Program) -> None:
    """Refuses guide sites that claim reparameterised draws but deliver draws without gradient.

    Raises:
        ValueError: Pyro then adds no score-function term either, so the gradient is silently wrong.
    """
    guide_trace, _ = _traces(program, grad=True)
    for name, site in sample_sites(guide_trace):
        value = site["value"]
        if site["is_observed"] or not site["fn"].has_rsample or value.requires_grad:
            continue
        if site["fn"].log_prob(value).requires_grad and site["infer"].get("enumerate") is None:
            raise ValueError(
                f"expected reparameterised draws at guide site {name!r} (its distribution says has_rsample), got "
                "draws cut off from its parameters; gradients would be silently wrong; remove the detach/no_grad, "
                "or set has_rsample_(False)"
            )


def traces_apart(
    model: Callable[..., Any], guide: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, Any]:
    """(guide trace, model trace) of two runs, in eval mode and under noise of their own."""
    with module_mode(model, guide, training=False), torch.no_grad(), seeded(0, "first step", device=in_use()):
        guide_trace, model_trace = (poutine.trace(fn).get_trace(*args, **kwargs) for fn in (guide, model))
    return guide_trace, model_trace


def _traces(program: Program, grad: bool = False) -> tuple[Any, Any]:
    args = program.arguments
    with (
        seeded(0, "validity", device=args.x.device),
        torch.set_grad_enabled(grad),
        module_mode(program.model, program.guide, training=False),
        program.on(args.chunks(2)[0]) as given,
    ):
        return program.traces(given, None)


def _show(scale: Tensor) -> str:
    return f"{scale.item():.6g}" if scale.numel() == 1 else f"a tensor {tuple(scale.shape)}"
