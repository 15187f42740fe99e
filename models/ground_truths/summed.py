"""Latents that are summed out: a mixture as a prior, and a chain of two classes."""

from __future__ import annotations

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from .truth import F64, GroundTruth, draws, sampled


def mixture_prior(
    num_data: int = 20, components: int = 4, spread: float = 3.0, width: float = 1.2, seed: int = 0
) -> GroundTruth:
    """z ~ sum_k pi_k N(mu_k, I/4), x ~ N(W z + b, I/2): ln sum_k pi_k N(x; W mu_k + b, W W^T/4 + I/2).

    Multimodal where W has a null space (two latents, one observed dim): the hard case for moves
    that follow gradients. The guide is the mixture of posteriors with its components widened.
    """
    normal = draws(seed)
    latent, event = 2, 1
    weight, bias, noise, own = normal(event, latent), normal(event), 0.5, 0.25
    centres = spread * normal(components, latent)
    prior_weights = torch.softmax(normal(components), 0)
    marginal = own * weight @ weight.T + noise * torch.eye(event, dtype=F64)
    parts = dist.MultivariateNormal(centres @ weight.T + bias, marginal)
    picked = torch.multinomial(
        prior_weights, num_data, replacement=True, generator=torch.Generator().manual_seed(seed)
    )
    z = centres[picked] + math.sqrt(own) * normal(num_data, latent)
    x = z @ weight.T + bias + math.sqrt(noise) * normal(num_data, event)
    gain = own * weight.T @ torch.linalg.inv(marginal)
    covariance = own * torch.eye(latent, dtype=F64) - gain @ weight * own

    def shares(x: Tensor) -> Tensor:
        return prior_weights.log() + parts.log_prob(x.unsqueeze(-2))

    def model(x: Tensor) -> None:
        prior = dist.MixtureSameFamily(
            dist.Categorical(prior_weights), dist.Normal(centres, math.sqrt(own)).to_event(1)
        )
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(z @ weight.T + bias, math.sqrt(noise)).to_event(1), obs=x)

    def guided(width: float) -> Callable[[Tensor], None]:
        def guide(x: Tensor) -> None:
            residual = x.unsqueeze(-2) - (centres @ weight.T + bias)
            q = dist.MultivariateNormal(centres + residual @ gain.T, covariance * width**2)
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(logits=shares(x)), q))

        return guide

    return GroundTruth(
        "mixture prior, linear decoder", model, guided(width), x, shares(x).logsumexp(-1), guided(1.0)
    )


def discrete(num_data: int = 20, classes: int = 3, event_dim: int = 6, seed: int = 0) -> GroundTruth:
    """Classes c and s | c, x ~ Bernoulli(p[c, s]): ln sum_{c,s} p(c) p(s|c) p(x|c,s), by enumeration.

    The guide mixes the posterior with a tenth of the uniform distribution.
    """
    normal = draws(seed)
    first = torch.softmax(normal(classes), 0)
    second = torch.softmax(normal(classes, classes), -1)
    logits = 2 * normal(classes, classes, event_dim)

    def sample(n: int) -> Tensor:
        c = dist.Categorical(first).sample((n,))
        return dist.Bernoulli(logits=logits[c, dist.Categorical(second[c]).sample()]).sample()

    x = sampled(sample, seed, num_data)

    def joint(x: Tensor) -> Tensor:  # [N, c, s]
        likelihood = dist.Bernoulli(logits=logits).log_prob(x[:, None, None]).sum(-1)
        return first.log().unsqueeze(-1) + second.log() + likelihood

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(first))
            s = pyro.sample("s", dist.Categorical(second[c]))
            pyro.sample("x", dist.Bernoulli(logits=logits[c, s]).to_event(1), obs=x)

    def guided(uniform: float) -> Callable[[Tensor], None]:
        def guide(x: Tensor) -> None:
            q = (1 - uniform) * joint(x).flatten(1).softmax(-1).reshape(len(x), classes, classes)
            q = q + uniform / classes**2
            with pyro.plate("data", len(x)):
                c = pyro.sample("c", dist.Categorical(q.sum(-1)))
                pyro.sample("s", dist.Categorical(q[torch.arange(len(x)), c]))

        return guide

    return GroundTruth(
        "discrete latents", model, guided(0.1), x, joint(x).logsumexp((-2, -1)), guided(0.0), continuous=False
    )
