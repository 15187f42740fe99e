"""Conjugate laws: Gamma and Poisson, Beta and Binomial."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from .truth import F64, GroundTruth, sampled


def gamma_poisson(num_data: int = 20, seed: int = 0) -> GroundTruth:
    """rate ~ Gamma(2, 1/2), x ~ Poisson(rate): negative binomial. The guide is half a count off."""
    shape, rate = torch.tensor(2.0, dtype=F64), torch.tensor(0.5, dtype=F64)
    law = dist.GammaPoisson(shape, rate)
    x = sampled(lambda n: law.sample((n,)), seed, num_data)

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
    x = sampled(lambda n: law.sample((n,)), seed, num_data)

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
