"""Distributions of each datum's own, optimised side by side for the ELBO."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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
        self,
        leaves: Sequence[Tensor],
        gradients: Callable[[], Sequence[Tensor | None]],
        advance: Callable[[], None] | None = None,
    ) -> None:
        """Moves `leaves` in place, against gradients of fresh draws, summed over data."""
        if not leaves:
            return
        optimizer = torch.optim.Adam(leaves, lr=self.lr, betas=(0.9, 0.99))
        for step in range(self.steps):
            for group in optimizer.param_groups:
                group["lr"] = 0.5 * self.lr * (1 + math.cos(math.pi * step / self.steps))
            for leaf, grad in zip(leaves, gradients(), strict=True):
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
        self.own = [mean, root]
        self.leaves = [torch.zeros_like(part).requires_grad_() for part in (mean, root, mean, mean)]

    def draw(self, num: int, antithetic: bool = True) -> tuple[Tensor, Tensor]:
        """u `[K, n, D]`, in antithetic pairs or independent, and ln q(u) `[K, n]`, nats."""
        return self.draw_given(self.leaves, self.own, num, antithetic)

    @staticmethod
    def draw_given(
        leaves: Sequence[Tensor], own: Sequence[Tensor], num: int, antithetic: bool = True
    ) -> tuple[Tensor, Tensor]:
        """`draw`, from (offsets of mean and factor, skewness, log tail weight) and (mean, factor)."""
        mean = own[0]
        count = math.ceil(num / 2) if antithetic else num
        noise = torch.randn(count, *mean.shape, dtype=mean.dtype, device=mean.device)
        if antithetic:
            noise = torch.cat([noise, -noise])[:num]
        return LocalFlow.at(noise, leaves, own)

    @staticmethod
    def at(noise: Tensor, leaves: Sequence[Tensor], own: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """u and ln q(u) for standard normal noise `[K, n, D]`."""
        shift, lower, skew, tail = leaves
        mean, root = own
        weight = tail.exp()
        inner = (noise.asinh() + skew) / weight
        inner = inner.clamp(-30.0, 30.0)
        v = inner.sinh()
        # dv/de = cosh(.) / (t sqrt(1 + e^2))
        log_slope = _log_cosh(inner) - tail - 0.5 * torch.log1p(noise.square())
        diagonal = torch.diagonal(lower, dim1=-2, dim2=-1)
        factor = lower.tril(-1) + torch.diag_embed(diagonal.exp())
        u = mean + torch.einsum("nde,kne->knd", root, shift + torch.einsum("nde,kne->knd", factor, v))
        log_det = torch.diagonal(root, dim1=-2, dim2=-1).log().sum(-1) + diagonal.sum(-1)
        log_p = -0.5 * noise.square().sum(-1) - 0.5 * noise.shape[-1] * math.log(2 * math.pi)
        return u, log_p - log_slope.sum(-1) - log_det


def _log_cosh(x: Tensor) -> Tensor:
    return x.abs() + torch.nn.functional.softplus(-2 * x.abs()) - math.log(2)
