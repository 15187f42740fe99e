"""Gaussian latents under Gaussian data, in one level or several: a Gaussian marginal."""

from __future__ import annotations

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.programs import program

from .truth import F64, GroundTruth, draws


def linear_gaussian(
    num_data: int = 20, latent_dim: int = 3, event_dim: int = 5, width: float = 1.2, seed: int = 0
) -> GroundTruth:
    """Factor analysis: z ~ N(0, I), x ~ N(W z + b, diag psi); ln N(x; b, W W^T + diag psi).

    The guide is the posterior `width` times as wide (Tipping & Bishop 1999,
    https://doi.org/10.1111/1467-9868.00196).
    """
    normal = draws(seed)
    weight, bias = normal(event_dim, latent_dim), normal(event_dim)
    noise = 0.3 + normal(event_dim).square()
    law = dist.LowRankMultivariateNormal(bias, weight, noise)
    x = normal(num_data, latent_dim) @ weight.T + bias + normal(num_data, event_dim) * noise.sqrt()
    precision = torch.eye(latent_dim, dtype=F64) + weight.T @ (weight / noise.unsqueeze(-1))
    covariance = torch.linalg.inv(precision)

    @program(density="exact", log_evidence=lambda x: law.log_prob(x))
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(latent_dim, dtype=F64), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ weight.T + bias, noise.sqrt()).to_event(1), obs=x)

    def guided(width: float) -> Callable[[Tensor], None]:
        def guide(x: Tensor) -> None:
            mean = ((x - bias) / noise) @ weight @ covariance
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.MultivariateNormal(mean, covariance * width**2))

        return guide

    return GroundTruth("linear-Gaussian", model, guided(width), x, law.log_prob(x), guided(1.0))


def hierarchical_linear_gaussian(
    levels: int = 3, num_data: int = 20, dim: int = 2, width: float = 1.15, seed: int = 0
) -> GroundTruth:
    """h_T ~ N(0, I), h_{t-1} ~ N(A_t h_t, I/2), x ~ N(A_1 h_1, I/2): a Gaussian marginal.

    The guide is bottom-up, q(h_1|x) prod_t q(h_t|h_{t-1}): the Markov factors of the posterior,
    each `width` times as wide.

    Raises:
        ValueError: levels < 1.
    """
    if levels < 1:
        raise ValueError(f"expected levels >= 1, got {levels}")
    normal = draws(seed)
    maps = [0.8 * normal(dim, dim) for _ in range(levels)]  # maps[t - 1] takes h_t to h_{t-1}; h_0 = x
    eye, noise = torch.eye(dim, dtype=F64), 0.5
    # Marginal covariances from the top: of h_T, ..., h_1, x.
    covariances = [eye]
    for a in reversed(maps):
        covariances.insert(0, a @ covariances[0] @ a.T + noise * eye)
    law = dist.MultivariateNormal(torch.zeros(dim, dtype=F64), covariances[0])
    x = normal(num_data, dim) @ torch.linalg.cholesky(covariances[0]).T

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            h = pyro.sample(f"h{levels}", dist.Normal(torch.zeros(dim, dtype=F64), 1.0).to_event(1))
            for t in range(levels - 1, 0, -1):
                h = pyro.sample(f"h{t}", dist.Normal(h @ maps[t].T, math.sqrt(noise)).to_event(1))
            pyro.sample("x", dist.Normal(h @ maps[0].T, math.sqrt(noise)).to_event(1), obs=x)

    def guided(width: float) -> Callable[[Tensor], None]:
        def guide(x: Tensor) -> None:
            below = x
            with pyro.plate("data", len(x)):
                for t in range(1, levels + 1):
                    gain = covariances[t] @ maps[t - 1].T @ torch.linalg.inv(covariances[t - 1])
                    left = covariances[t] - gain @ maps[t - 1] @ covariances[t]
                    left = (left + left.T) / 2
                    q = dist.MultivariateNormal(below @ gain.T, left * width**2)
                    below = pyro.sample(f"h{t}", q)

        return guide

    name = f"hierarchical linear-Gaussian, {levels} levels"
    return GroundTruth(name, model, guided(width), x, law.log_prob(x), guided(1.0))
