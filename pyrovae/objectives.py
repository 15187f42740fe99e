"""Objectives: Pyro's own ELBOs, checked for validity, with beta and free bits outside of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.infer import RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from pyro.infer.elbo import ELBO as PyroELBO
from pyro.infer.util import torch_item
from torch import Tensor

from .programs import Program
from .programs.scaling import scale_latents
from .programs.sites import sample_sites
from .programs.validity import (
    check_pathwise,
    check_scales,
    mean_field_breaches,
    not_reparameterised,
    scaled_sites,
)

__all__ = ["BetaELBO", "FreeBits", "check_objective"]


def check_objective(objective: Any, program: Program) -> None:
    """Refuses an objective that would be silently wrong for this program.

    Raises:
        ValueError: `TraceMeanField_ELBO` with a guide that breaks its condition or is not
            reparameterised; a scale on one side only; `RenyiELBO` under subsampling or scales;
            enumerated sites under an objective that does not sum them out.
    """
    name = type(objective).__name__
    check_scales(program)
    check_pathwise(program)
    while isinstance(objective, BetaELBO | FreeBits):
        objective = objective.base
    if program.enumerated and not isinstance(objective, TraceEnum_ELBO):
        raise ValueError(f"expected TraceEnum_ELBO for a program with enumerated sites, got {name}")
    scores = not_reparameterised(program)
    if isinstance(objective, TraceMeanField_ELBO):
        if scores:
            raise ValueError(
                f"expected a reparameterised guide for {name}, got {scores} without rsample; try Trace_ELBO"
            )
        breaches = mean_field_breaches(program)
        if breaches:
            z, parent = breaches[0]
            raise ValueError(
                f"expected a guide that meets the mean-field condition of {name}, got one in which {parent!r} is "
                f"drawn from {z!r} while the model draws {z!r} from {parent!r}: its KL for {z!r} would hold "
                f"{parent!r} fixed, and the loss would be wrong without a sign; try Trace_ELBO, or write the "
                "guide top-down"
            )
    elif isinstance(objective, RenyiELBO):
        if scores:
            raise ValueError(f"expected a reparameterised guide for {name}, got {scores} without rsample")
        scaled = scaled_sites(program)
        if scaled:
            raise ValueError(
                f"expected unit scales for {name}, got scaled sites {scaled}: Pyro puts the scale inside the "
                "log-sum-exp, where the result is no bound; try plate(..., len(x)) without subsample_size"
            )


def with_terms(
    objective: PyroELBO, *, beta: float = 1.0, free_bits: float = 0.0, beta_varies: bool = False
) -> PyroELBO:
    """`objective` with KL weight and free bits around it, where they are asked for.

    Raises:
        ValueError: for a KL weight on an objective in which there is no KL term to weigh.
    """
    if beta < 0:
        raise ValueError(f"expected beta >= 0, got {beta}")
    if free_bits < 0:
        raise ValueError(f"expected free_bits >= 0 nats per latent site, got {free_bits}")
    if free_bits:
        if not isinstance(objective, Trace_ELBO):
            raise ValueError(
                f"expected Trace_ELBO or TraceMeanField_ELBO for free bits, got {type(objective)}"
            )
        objective = FreeBits(objective, free_bits)
    if beta != 1.0 or beta_varies:
        inner = objective.base if isinstance(objective, FreeBits) else objective
        if not isinstance(inner, Trace_ELBO | TraceGraph_ELBO | TraceEnum_ELBO):
            raise ValueError(
                f"expected an ELBO with a KL term to weigh by beta, got {type(inner).__name__}; train it at beta = 1"
            )
        objective = BetaELBO(objective, beta)
    return objective


class BetaELBO(PyroELBO):
    """E_q[ln p(x|z)] - beta KL(q || p), around any of Pyro's ELBOs (Higgins et al. 2017).

    For beta < 1 it is no bound on ln p(x); evidence is always reported at beta = 1.
    https://openreview.net/forum?id=Sy2fzU9gl

    Args:
        base: the ELBO that estimates the terms.
        beta: KL weight; may be changed between steps.
    """

    def __init__(self, base: Any, beta: float = 1.0) -> None:
        self.base = base
        self.beta = beta

    def __repr__(self) -> str:
        return f"BetaELBO({type(self.base).__name__}, beta={self.beta:g})"

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        return self.base._get_trace(model, guide, args, kwargs)

    def loss(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The negative objective, summed over the batch, in nats."""
        return self.base.loss(
            scale_latents(model, self.beta), scale_latents(guide, self.beta), *args, **kwargs
        )

    def loss_and_grads(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """As `loss`, and gradients into the parameters."""
        return self.base.loss_and_grads(
            scale_latents(model, self.beta), scale_latents(guide, self.beta), *args, **kwargs
        )


class FreeBits(PyroELBO):
    """E_q[ln p(x|z)] - sum_l max(bits, mean_batch KL_l), KL per latent site (Kingma et al. 2016).

    A site below its allowance feels no KL gradient, so it is not pressed into collapse.
    https://arxiv.org/abs/1606.04934

    Args:
        base: `Trace_ELBO` (Monte-Carlo KL) or `TraceMeanField_ELBO` (analytic where registered).
        bits: allowance per latent site, in nats per datum (in an inner plate: per element of it).
    """

    def __init__(self, base: Trace_ELBO, bits: float) -> None:
        self.base = base
        self.bits = bits

    def __repr__(self) -> str:
        return f"FreeBits({type(self.base).__name__}, {self.bits:g} nats)"

    def _get_trace(self, model: Any, guide: Any, args: Any, kwargs: Any) -> Any:
        return self.base._get_trace(model, guide, args, kwargs)

    def differentiable_loss(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Tensor:
        """The negative objective, summed over the batch, differentiable."""
        loss = torch.zeros(())
        kl: dict[str, Tensor] = {}
        allowance: dict[str, Tensor] = {}
        for model_trace, guide_trace in self.base._get_traces(model, guide, args, kwargs):
            loss = loss + self._add_terms(model_trace, guide_trace, kl, allowance)
        # The maximum is of means over particles: taken one by one it would be larger.
        for name, value in kl.items():
            loss = loss + torch.maximum(value, allowance[name])
        # Not the number of traces: with vectorize_particles one trace sums over all particles.
        return loss / self.base.num_particles

    def _add_terms(
        self, model_trace: Any, guide_trace: Any, kl: dict[str, Tensor], allowance: dict[str, Tensor]
    ) -> Tensor:
        analytic = isinstance(self.base, TraceMeanField_ELBO)
        loss = torch.zeros(())
        auxiliary = [n for n, _ in sample_sites(guide_trace) if n not in model_trace.nodes]
        if auxiliary:
            raise ValueError(
                f"expected a guide whose sites are the model's for free bits, got {auxiliary}: the KL of the "
                "latents that auxiliary sites are mapped to cannot be told apart"
            )
        for name, site in sample_sites(model_trace):
            if site["is_observed"]:
                loss = loss - site["log_prob_sum"]
                continue
            other = guide_trace.nodes[name]
            if not other["fn"].has_rsample:
                raise ValueError(
                    f"expected a reparameterised guide for free bits, got {name!r} without rsample"
                )
            value = self._analytic(other, site) if analytic else None
            if value is None:
                value = other["log_prob"].sum() - site["log_prob_sum"]
            # The allowance scales as the KL does: with subsampling, and with beta around.
            allowed = (torch.ones_like(other["log_prob"]) * other["scale"]).sum() * self.bits
            kl[name] = kl.get(name, torch.zeros(())) + value
            allowance[name] = allowance.get(name, torch.zeros(())) + allowed
        return loss

    @staticmethod
    def _analytic(guide_site: Any, model_site: Any) -> Tensor | None:
        try:
            kl = torch.distributions.kl_divergence(guide_site["fn"], model_site["fn"])
        except NotImplementedError:
            return None
        if guide_site["mask"] is not None:
            kl = torch.where(torch.as_tensor(guide_site["mask"]), kl, torch.zeros_like(kl))
        return (kl * guide_site["scale"]).sum()

    def loss(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """The negative objective, summed over the batch, in nats."""
        return torch_item(self.differentiable_loss(model, guide, *args, **kwargs))

    def loss_and_grads(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> float:
        """As `loss`, and gradients into the parameters."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward()
        return torch_item(loss)
