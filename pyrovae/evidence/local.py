"""Distributions of each datum's own, optimised side by side for the ELBO."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..programs.densities import Densities


@dataclass(frozen=True)
class LocalFit:
    """How per-datum distributions are optimised: Adam on E_q[ln w], all data in one tensor.

    Adam acts on each number alone, so data do not see each other: it is as if each were optimised by itself.

    Args:
        steps: of Adam.
        num_particles: draws per datum and step.
        lr: first learning rate, in unconstrained space; it falls to 0 along half a cosine, which averages the
            noise of the gradient away.

    Raises:
        ValueError: fewer than one step, fewer than two particles, lr <= 0.
    """

    steps: int = 1000
    num_particles: int = 16
    lr: float = 0.03

    def __post_init__(self) -> None:
        if self.steps < 1 or self.num_particles < 2 or not 0 < self.lr < math.inf:
            raise ValueError(f"expected steps >= 1, num_particles >= 2 and a finite lr > 0, got {self}")

    def minimise(
        self, leaves: Sequence[Tensor], loss: Callable[[], Tensor], advance: Callable[[], None] | None = None
    ) -> None:
        """Moves `leaves` in place; `loss()` draws afresh and sums over data."""
        if not leaves:
            return
        optimizer = torch.optim.Adam(leaves, lr=self.lr, betas=(0.9, 0.99))
        for step in range(self.steps):
            for group in optimizer.param_groups:
                group["lr"] = 0.5 * self.lr * (1 + math.cos(math.pi * step / self.steps))
            grads = torch.autograd.grad(loss(), leaves, allow_unused=True)
            for leaf, grad in zip(leaves, grads, strict=True):
                # A datum without a finite density somewhere must not stop the others.
                leaf.grad = None if grad is None else torch.nan_to_num(grad, posinf=0.0, neginf=0.0)
            optimizer.step()
            if advance is not None:
                advance()
        for leaf in leaves:
            leaf.grad = None


class LocalFlow:
    """q_n(u) of u = m + L v, v_j = sinh((asinh e_j + s_j) / t_j), e ~ N(0, I): one flow a datum.

    A full covariance (L lower triangular) with skewness s and tail weight t of its own along every coordinate
    of the noise (sinh-arcsinh, Jones & Pewsey 2009, https://doi.org/10.1093/biomet/asp053). It lives in
    unconstrained space and holds every Gaussian there: richer than diagonal, low-rank and full Gaussian guides.

    Args:
        draws: `[M, n, D]`, whose mean and covariance it starts at.
    """

    MAX_DIM = 512

    def __init__(self, draws: Tensor) -> None:
        mean, dim = draws.mean(0), draws.shape[-1]
        if dim > self.MAX_DIM:
            raise ValueError(
                f"expected at most {self.MAX_DIM} latent dims for a full covariance per datum, got {dim}; "
                "try flow=False"
            )
        spread = draws - mean
        covariance = torch.einsum("mnd,mne->nde", spread, spread) / (len(draws) - 1)
        floor = 1e-6 * (1e-6 + torch.diagonal(covariance, dim1=-2, dim2=-1))
        root, failed = torch.linalg.cholesky_ex(covariance + torch.diag_embed(floor))
        diagonal = torch.diag_embed(floor.add(torch.diagonal(covariance, dim1=-2, dim2=-1)).sqrt())
        root = torch.where((failed != 0).reshape(-1, 1, 1), diagonal, root)
        # Columns in units of the starting scales, so that one learning rate suits all coordinates.
        self._mean, self._root = mean, root
        self.shift = torch.zeros_like(mean)
        self.lower = torch.zeros_like(root)
        self.skew, self.tail = torch.zeros_like(mean), torch.zeros_like(mean)
        for leaf in self.leaves:
            leaf.requires_grad_()

    @property
    def leaves(self) -> list[Tensor]:
        """Offsets of mean and factor, skewness, log tail weight."""
        return [self.shift, self.lower, self.skew, self.tail]

    def draw(self, num: int) -> tuple[Tensor, Tensor]:
        """u `[K, n, D]` in antithetic pairs, and ln q(u) `[K, n]`, nats."""
        half = torch.randn(
            math.ceil(num / 2), *self._mean.shape, dtype=self._mean.dtype, device=self._mean.device
        )
        return self.at(torch.cat([half, -half])[:num])

    def at(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """u and ln q(u) for standard normal noise `[K, n, D]`."""
        weight = self.tail.exp()
        inner = (noise.asinh() + self.skew) / weight
        inner = inner.clamp(-30.0, 30.0)
        v = inner.sinh()
        # dv/de = cosh(.) / (t sqrt(1 + e^2))
        log_slope = _log_cosh(inner) - self.tail - 0.5 * torch.log1p(noise.square())
        lower = self.lower.tril(-1) + torch.diag_embed(torch.diagonal(self.lower, dim1=-2, dim2=-1).exp())
        u = self._mean + torch.einsum(
            "nde,kne->knd", self._root, self.shift + torch.einsum("nde,kne->knd", lower, v)
        )
        log_det = torch.diagonal(self._root, dim1=-2, dim2=-1).log().sum(-1)
        log_det = log_det + torch.diagonal(self.lower, dim1=-2, dim2=-1).sum(-1)
        log_p = -0.5 * noise.square().sum(-1) - 0.5 * noise.shape[-1] * math.log(2 * math.pi)
        return u, log_p - log_slope.sum(-1) - log_det

    def log_weights(self, densities: Densities, num: int, antithetic: bool = True) -> Tensor:
        """ln p(x, z(u)) + ln|dz/du| - ln q(u), `[K, n]`, nats."""
        if antithetic:
            u, log_q = self.draw(num)
        else:
            u, log_q = self.at(
                torch.randn(num, *self._mean.shape, dtype=self._mean.dtype, device=self._mean.device)
            )
        terms = densities.terms(u)
        return terms.prior + terms.likelihood - log_q


def _log_cosh(x: Tensor) -> Tensor:
    return x.abs() + torch.nn.functional.softplus(-2 * x.abs()) - math.log(2)
