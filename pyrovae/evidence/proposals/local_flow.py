"""A flow of each datum's own: full covariance, skewness and tail weight."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


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
        dim = draws.shape[-1]
        # A draw outside of the model's support has no place here.
        usual = torch.nan_to_num(draws).sum(0) / torch.isfinite(draws).sum(0).clamp(min=1)
        draws = torch.where(torch.isfinite(draws), draws, usual)
        mean = draws.mean(0)
        if dim > self.MAX_DIM:
            raise ValueError(
                f"expected at most {self.MAX_DIM} latent dims for a full covariance per datum, got {dim}; "
                "try pv.AIS or pv.IS (pv.gaps: flow=False)"
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

    def select(self, rows: Tensor | slice) -> LocalFlow:
        """The flows of some data, in tensors of their own, by their places among the n."""
        flow = type(self).__new__(type(self))
        flow.own = [part[rows] for part in self.own]
        flow.leaves = [leaf.detach()[rows].clone() for leaf in self.leaves]
        return flow

    def put_back(self, rows: Tensor, other: LocalFlow) -> None:
        """Gives the data at `rows` `[n]` (bool) the parameters of another flow that starts alike."""
        with torch.no_grad():
            for leaf, former in zip(self.leaves, other.leaves, strict=True):
                where = rows.reshape(-1, *[1] * (leaf.dim() - 1))
                leaf.copy_(torch.where(where, former, leaf))

    def draw(self, num: int, antithetic: bool = True) -> tuple[Tensor, Tensor]:
        """u `[K, n, D]`, in antithetic pairs or independent, and ln q(u) `[K, n]`, nats."""
        return self.draw_given(self.leaves, self.own, num, antithetic)

    def sample(self, num: int) -> Tensor:
        """Independent draws u `[K, n, D]`."""
        return self.draw(num, antithetic=False)[0]

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

    def log_prob(self, u: Tensor) -> Tensor:
        """ln q(u) at any u `[K, n, D]`: `[K, n]`, nats."""
        return self.log_prob_given(u, self.leaves, self.own)

    @staticmethod
    def log_prob_given(u: Tensor, leaves: Sequence[Tensor], own: Sequence[Tensor]) -> Tensor:
        """`log_prob`, from the leaves and (mean, factor)."""
        shift, lower, skew, tail = leaves
        mean, root = own
        diagonal = torch.diagonal(lower, dim1=-2, dim2=-1)
        factor = lower.tril(-1) + torch.diag_embed(diagonal.exp())
        columns = torch.linalg.solve_triangular(root, (u - mean).permute(1, 2, 0), upper=False)
        v = torch.linalg.solve_triangular(factor, columns - shift.unsqueeze(-1), upper=False)
        inner = v.permute(2, 0, 1).asinh().clamp(-30.0, 30.0)
        # Beyond float's reach of sinh the noise is as improbable as a number can say.
        noise = (tail.exp() * inner - skew).clamp(-40.0, 40.0).sinh()
        log_slope = _log_cosh(inner) - tail - 0.5 * torch.log1p(noise.square())
        log_det = torch.diagonal(root, dim1=-2, dim2=-1).log().sum(-1) + diagonal.sum(-1)
        log_p = -0.5 * noise.square().sum(-1) - 0.5 * noise.shape[-1] * math.log(2 * math.pi)
        return log_p - log_slope.sum(-1) - log_det


def _log_cosh(x: Tensor) -> Tensor:
    return x.abs() + torch.nn.functional.softplus(-2 * x.abs()) - math.log(2)
