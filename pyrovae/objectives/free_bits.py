"""Free bits: a KL allowance for each latent site."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.elbo import ELBO as PyroELBO
from pyro.infer.util import torch_item
from torch import Tensor

from ..devices import as_tensor
from ..programs.sites import sample_sites


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
        loss = torch.zeros((), device="cpu")
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
        loss = torch.zeros((), device="cpu")
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
            kl[name] = kl.get(name, torch.zeros((), device="cpu")) + value
            allowance[name] = allowance.get(name, torch.zeros((), device="cpu")) + allowed
        return loss

    @staticmethod
    def _analytic(guide_site: Any, model_site: Any) -> Tensor | None:
        try:
            kl = torch.distributions.kl_divergence(guide_site["fn"], model_site["fn"])
        except NotImplementedError:
            return None
        if guide_site["mask"] is not None:
            kl = torch.where(as_tensor(guide_site["mask"]), kl, torch.zeros_like(kl))
        return (kl * guide_site["scale"]).sum()

    def loss(self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
        """The negative objective, summed over the batch, in nats."""
        return torch_item(self.differentiable_loss(model, guide, *args, **kwargs))

    def loss_and_grads(
        self, model: Callable[..., Any], guide: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> float:
        """Loss as `loss` gives it, and gradients into the parameters."""
        loss = self.differentiable_loss(model, guide, *args, **kwargs)
        if loss.requires_grad:
            loss.backward()
        return torch_item(loss)
