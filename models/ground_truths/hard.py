"""Hard for importance sampling: a posterior on a dense grid, and weights with a tail of known index."""

from __future__ import annotations

import math
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from .truth import F64, GroundTruth, draws


def nonlinear(latent_dim: int = 1, num_data: int = 20, width: float = 1.3, seed: int = 0) -> GroundTruth:
    """z ~ N(0, I_d), x ~ N(tanh(A z) + z_1^2 / 4, 0.4^2 I_3): no closed form; a dense grid for d = 1 or 2.

    The trapezoidal rule on an analytic integrand that vanishes at the ends converges faster than
    any power of the step: what it leaves here is below 1e-10. The guide is a Gaussian with the
    grid's moments, `width` times as wide.

    Raises:
        ValueError: latent_dim other than 1 and 2.
    """
    if latent_dim not in (1, 2):
        raise ValueError(f"expected latent_dim 1 or 2, got {latent_dim}")
    normal = draws(seed)
    weight, noise = 1.5 * normal(3, latent_dim), 0.4

    def mean(z: Tensor) -> Tensor:
        return torch.tanh(z @ weight.T) + 0.25 * z[..., :1].square()

    x = mean(normal(num_data, latent_dim)) + noise * normal(num_data, 3)
    axis = torch.linspace(-9, 9, 1201 if latent_dim == 1 else 361, dtype=F64)
    grid = torch.cartesian_prod(*[axis] * latent_dim).reshape(-1, latent_dim)
    prior = dist.Normal(torch.zeros(latent_dim, dtype=F64), 1.0).to_event(1)
    centres = mean(grid)
    joint = torch.stack(
        [prior.log_prob(grid) + dist.Normal(centres, noise).log_prob(row).sum(-1) for row in x]
    )
    log_evidence = joint.logsumexp(-1) + latent_dim * math.log(axis[1] - axis[0])
    p = joint.softmax(-1)
    loc = p @ grid
    scale = torch.einsum("ng,gi,gj->nij", p, grid, grid) - loc.unsqueeze(-1) * loc.unsqueeze(-2)
    table = torch.cat([x, loc, scale.flatten(1)], -1)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(mean(z), noise).to_event(1), obs=x)

    def guide(x: Tensor) -> None:
        row = (x.unsqueeze(-2) - table[:, :3]).square().sum(-1).argmin(-1)  # moments of the nearest datum
        loc = table[row, 3 : 3 + latent_dim]
        covariance = table[row, 3 + latent_dim :].reshape(-1, latent_dim, latent_dim)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal(loc, covariance * width**2))

    return GroundTruth(f"nonlinear, {latent_dim} latent dims", model, guide, x, log_evidence)


def psis_tail(scale: float = 0.8, num_data: int = 20, seed: int = 0) -> GroundTruth:
    """z ~ N(0, 1), x ~ N(0, 1) whatever z is: posterior N(0, 1), guide N(0, s^2).

    For s < 1 the weights have the Pareto tail index 1 - s^2, and E (w/Z)^2 = s^2 / sqrt(2 s^2 - 1),
    infinite for s^2 <= 1/2 (Vehtari et al. 2024, https://arxiv.org/abs/1507.02646).

    Raises:
        ValueError: scale <= 0.
    """
    if scale <= 0:
        raise ValueError(f"expected scale > 0, got {scale}")
    law = dist.Normal(torch.zeros((), dtype=F64), 1.0)
    x = draws(seed)(num_data)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("z", law)
            pyro.sample("x", law, obs=x)

    def guided(scale: float) -> Callable[[Tensor], None]:
        def guide(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(torch.zeros((), dtype=F64), scale))

        return guide

    name = f"PSIS tail, k = {1 - scale**2:.2f}" if scale < 1 else f"wide guide, s = {scale:g}"
    return GroundTruth(name, model, guided(scale), x, law.log_prob(x), guided(1.0))
