"""Probabilistic PCA and factor analysis: the VAE whose evidence and posterior are known."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrovae.programs import program


class LinearGaussian(nn.Module):
    """p(z) = N(0, I), p(x | z) = N(W z + b, Psi); ln p(x) = ln N(x; b, W W^T + Psi).

    With its exact guide every log-weight equals ln p(x), so all estimators must agree to
    rounding: the oracle of this library. Psi = s^2 I is probabilistic PCA (Tipping & Bishop
    1999, https://doi.org/10.1111/1467-9868.00196), diagonal Psi is factor analysis.

    Args:
        weight: W, `[event, latent]`.
        bias: b, `[event]`; default 0.
        noise: variances Psi, a number or `[event]`; default 1.
        learn: whether the three are trained.

    Raises:
        ValueError: for shapes that do not match, or variances <= 0.
    """

    log_noise: Tensor

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None = None,
        noise: Tensor | float = 1.0,
        learn: bool = True,
    ) -> None:
        super().__init__()
        if weight.dim() != 2:
            raise ValueError(f"expected weight of shape [event, latent], got {tuple(weight.shape)}")
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        variances = torch.as_tensor(noise, dtype=weight.dtype, device=weight.device)
        if bias.shape != weight.shape[:1] or variances.shape not in ((), weight.shape[:1]):
            raise ValueError(
                f"expected bias [{len(weight)}] and noise a number or [{len(weight)}], got {tuple(bias.shape)} "
                f"and {tuple(variances.shape)}"
            )
        if not (variances > 0).all():
            raise ValueError(f"expected noise variances > 0, got a minimum of {variances.min().item()}")
        self.weight = nn.Parameter(weight.clone(), requires_grad=learn)
        self.bias = nn.Parameter(bias.clone(), requires_grad=learn)
        self.log_noise = nn.Parameter(variances.log(), requires_grad=learn)

    @classmethod
    def random(cls, event_dim: int, latent_dim: int) -> LinearGaussian:
        """A start for training, drawn from torch's current random state."""
        return cls(torch.randn(event_dim, latent_dim) / math.sqrt(latent_dim))

    def likelihood(self, z: Tensor) -> dist.TorchDistribution:
        """p(x | z)."""
        return dist.Normal(z @ self.weight.T + self.bias, (0.5 * self.log_noise).exp()).to_event(1)

    def prior(self) -> dist.TorchDistribution:
        """p(z)."""
        return dist.Normal(torch.zeros_like(self.weight[0]), 1.0).to_event(1)

    def posterior(self, x: Tensor) -> dist.MultivariateNormal:
        """p(z | x) = N(M^-1 u, M^-1), M = I + W^T Psi^-1 W, u = W^T Psi^-1 (x - b)."""
        scaled = self.weight / self.log_noise.exp().expand(len(self.weight)).unsqueeze(-1)
        precision = torch.eye(scaled.shape[1], dtype=x.dtype, device=x.device) + self.weight.T @ scaled
        factor = torch.linalg.cholesky(precision)
        mean = torch.cholesky_solve(((x - self.bias) @ scaled).mT, factor).mT
        return dist.MultivariateNormal(mean, precision_matrix=precision)

    def log_evidence(self, x: Tensor) -> Tensor:
        """Exact ln p(x_n), `[N]`, in nats."""
        noise = self.log_noise.exp().expand(len(self.weight))
        return dist.LowRankMultivariateNormal(self.bias, self.weight, noise).log_prob(x)

    @program(density="exact", plate="data", observed="x", log_evidence=log_evidence)
    def model(self, x: Tensor) -> None:
        """z ~ N(0, I), x ~ N(W z + b, Psi)."""
        pyro.module("linear_gaussian", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", self.prior())
            pyro.sample("x", self.likelihood(z), obs=x)

    def guide(self, x: Tensor) -> None:
        """The exact posterior."""
        pyro.module("linear_gaussian", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.posterior(x))
