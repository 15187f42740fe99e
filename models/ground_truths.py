"""Programs whose evidence is known exactly: what every estimator is held against."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from pyrovae.programs import program

F64 = torch.float64


@dataclass(frozen=True)
class GroundTruth:
    """A model/guide pair, data, and their exact evidence.

    Attributes:
        name: what it is.
        model, guide: the pair; the guide is close to the posterior but not equal to it.
        x: data, `[N, *event]`, drawn from the model.
        log_evidence: exact ln p(x_n), `[N]`, float64, nats.
        exact_guide: the posterior itself, where it is a distribution one can write down.
        continuous: whether all latents are continuous, as gradient-based moves need.
    """

    name: str
    model: Callable[..., Any]
    guide: Callable[..., Any]
    x: Tensor
    log_evidence: Tensor = field(repr=False)
    exact_guide: Callable[..., Any] | None = None
    continuous: bool = True


def _draws(seed: int) -> Callable[..., Tensor]:
    random = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=random, dtype=F64)


def _sampled(prior: Callable[[int], Tensor], seed: int, num_data: int) -> Tensor:
    """Data of a sampler that takes no generator, without a trace in the caller's random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return prior(num_data)


def linear_gaussian(
    num_data: int = 20, latent_dim: int = 3, event_dim: int = 5, width: float = 1.2, seed: int = 0
) -> GroundTruth:
    """Factor analysis: z ~ N(0, I), x ~ N(W z + b, diag psi); ln N(x; b, W W^T + diag psi).

    The guide is the posterior `width` times as wide (Tipping & Bishop 1999,
    https://doi.org/10.1111/1467-9868.00196).
    """
    normal = _draws(seed)
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
    normal = _draws(seed)
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


def mixture_prior(
    num_data: int = 20, components: int = 4, spread: float = 3.0, width: float = 1.2, seed: int = 0
) -> GroundTruth:
    """z ~ sum_k pi_k N(mu_k, I/4), x ~ N(W z + b, I/2): ln sum_k pi_k N(x; W mu_k + b, W W^T/4 + I/2).

    Multimodal where W has a null space (two latents, one observed dim): the hard case for moves
    that follow gradients. The guide is the mixture of posteriors with its components widened.
    """
    normal = _draws(seed)
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
    normal = _draws(seed)
    first = torch.softmax(normal(classes), 0)
    second = torch.softmax(normal(classes, classes), -1)
    logits = 2 * normal(classes, classes, event_dim)

    def sample(n: int) -> Tensor:
        c = dist.Categorical(first).sample((n,))
        return dist.Bernoulli(logits=logits[c, dist.Categorical(second[c]).sample()]).sample()

    x = _sampled(sample, seed, num_data)

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


def gamma_poisson(num_data: int = 20, seed: int = 0) -> GroundTruth:
    """rate ~ Gamma(2, 1/2), x ~ Poisson(rate): negative binomial. The guide is half a count off."""
    shape, rate = torch.tensor(2.0, dtype=F64), torch.tensor(0.5, dtype=F64)
    law = dist.GammaPoisson(shape, rate)
    x = _sampled(lambda n: law.sample((n,)), seed, num_data)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("rate", dist.Gamma(shape, rate))
            pyro.sample("x", dist.Poisson(z), obs=x)

    def guided(off: float) -> Callable[[Tensor], None]:
        def guide(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("rate", dist.Gamma(shape + x + off, rate + 1 + 0.2 * off))

        return guide

    return GroundTruth("Gamma-Poisson", model, guided(0.5), x, law.log_prob(x), guided(0.0))


def beta_binomial(num_data: int = 20, trials: int = 12, seed: int = 0) -> GroundTruth:
    """p ~ Beta(2, 3), x ~ Binomial(trials, p): beta-binomial. The guide has seen one trial less."""
    a, b = torch.tensor(2.0, dtype=F64), torch.tensor(3.0, dtype=F64)
    law = dist.BetaBinomial(a, b, trials)
    x = _sampled(lambda n: law.sample((n,)), seed, num_data)

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            p = pyro.sample("p", dist.Beta(a, b))
            pyro.sample("x", dist.Binomial(trials, p), obs=x)

    def guided(factor: float) -> Callable[[Tensor], None]:
        def guide(x: Tensor) -> None:
            with pyro.plate("data", len(x)):
                pyro.sample("p", dist.Beta(a + factor * x, b + factor * (trials - x)))

        return guide

    return GroundTruth("Beta-Binomial", model, guided((trials - 1) / trials), x, law.log_prob(x), guided(1.0))


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
    normal = _draws(seed)
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
    x = _draws(seed)(num_data)

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


def ground_truths(num_data: int = 20, seed: int = 0) -> list[GroundTruth]:
    """One of each."""
    return [
        linear_gaussian(num_data, seed=seed),
        hierarchical_linear_gaussian(2, num_data, seed=seed),
        hierarchical_linear_gaussian(4, num_data, seed=seed),
        mixture_prior(num_data, seed=seed),
        discrete(num_data, seed=seed),
        gamma_poisson(num_data, seed=seed),
        beta_binomial(num_data, seed=seed),
        nonlinear(1, num_data, seed=seed),
        nonlinear(2, num_data, seed=seed),
        psis_tail(0.8, num_data, seed=seed),
    ]
