"""Programs whose importance weights, or their gradients, would mean nothing."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch

from ...devices import as_tensor
from ..latents.supports import base_of
from ..sites import is_factor, sample_sites, unscaled_log_prob
from .agreement import check_latents


def refuse(q: Any, p: Any, plate: str, name: str) -> None:
    """Refuses what gives no weights, or none with pathwise gradients, per datum."""
    latents = [(n, s) for n, s in sample_sites(q) if not s["is_observed"]]
    every = [(n, s) for t in (p, q) for n, s in sample_sites(t)]
    if any(s["infer"].get("enumerate") == "parallel" and not s["is_observed"] for _, s in every):
        raise ValueError(f"expected TraceEnum_ELBO for a program with enumerated sites, got {name}")
    scores = [n for n, s in latents if not s["fn"].has_rsample]
    if scores:
        raise ValueError(f"expected a reparameterised guide for {name}, got {scores} without rsample")
    check_latents(q, p, plate)
    # One scale inside of a datum; that of latents may differ by the KL weight, in model and guide alike.
    for kind, group in (
        ("observed", [(n, s) for n, s in sample_sites(p) if s["is_observed"]]),
        ("latent", [(n, s) for n, s in every if not s["is_observed"]]),
    ):
        scales = [(n, as_tensor(s["scale"], dtype=torch.float64)) for n, s in group]
        for n, scale in scales[1:]:
            if scale.shape != scales[0][1].shape or not torch.allclose(scale, scales[0][1]):
                raise ValueError(
                    f"expected one scale of all {kind} sites, in model and guide, for {name}, got another at {n!r} "
                    f"than at {scales[0][0]!r}; put poutine.scale and subsampled plates around both programs"
                )


def refuse_density(q: Any, p: Any, density: str | None) -> None:
    """Refuses surrogates."""
    factors = [n for t in (p, q) for n, s in sample_sites(t) if is_factor(s)]
    if density == "bound_only":
        raise ValueError(
            "expected a program with a density, got one declared density='bound_only': exp(log w) means nothing "
            "for a surrogate; try Trace_ELBO"
        )
    if factors and density is None:
        raise ValueError(
            f"expected a model whose density is known, got pyro.factor at {factors} undeclared; decorate it with "
            "@pyrovae.program(density='exact' | 'unnormalised' | 'bound_only')"
        )


def refuse_hidden_density(fixed: Any, name: str) -> None:
    """A Jacobian kept apart from its draw: with the draws held fixed its gradient is no score."""
    for n, site in sample_sites(fixed):
        fn = base_of(site["fn"])
        if isinstance(fn, dist.Delta):
            hidden = fn.v.requires_grad or fn.log_density.requires_grad
        else:
            hidden = is_factor(site) and site["fn"].log_factor.requires_grad
        if hidden:
            raise ValueError(
                f"expected a guide whose sites have densities of their own for {name}, got {n!r}, a Delta or a "
                "factor that depends on parameters: the score of q cannot be told apart; try IWAE, or sample the "
                "latent from a TransformedDistribution"
            )


def refuse_own_noise(q: Any, again: Any, name: str) -> None:
    """A guide that scores its own draws otherwise when run again, as with dropout."""
    for n, site in sample_sites(q):
        if not torch.allclose(
            unscaled_log_prob(site), unscaled_log_prob(again.nodes[n]), rtol=1e-3, atol=1e-3
        ):
            raise ValueError(
                f"expected a guide of several sites to have no noise of its own for {name}, which runs it twice, "
                f"got other log-probabilities of {n!r} the second time; try it without dropout, or IWAE"
            )
