"""A mixture of Student-t densities for each datum, fitted to weighted draws."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

DF = 5.0  # degrees of freedom: heavier tails than a posterior has, with a variance
ROUNDS = 10  # of expectation maximisation


class StudentMixture:
    """q_n(u) = sum_m pi_m t_5(u; mu_m, S_m), one a datum, of least inclusive Kullback-Leibler divergence to the draws.

    Weighted draws stand for the posterior; expectation maximisation raises sum_k w_k ln q(u_k) (adaptive importance
    sampling: Cappe et al. 2008, https://arxiv.org/abs/0710.4242). Several modes have components of their own, and the
    tails hold those of most posteriors. For few coordinates: a covariance of D numbers squared is read off the draws.

    Args:
        u: draws `[K, n, D]`.
        log_weights: theirs `[K, n]`, nats; -inf counts as no draw.
        num_components: M.
    """

    def __init__(self, u: Tensor, log_weights: Tensor, num_components: int) -> None:
        x = u.double()
        share = torch.nan_to_num(log_weights.double(), nan=-torch.inf).softmax(0)
        # Without any weight there is nothing to go by: the draws as they are.
        share = torch.where(share.isnan(), 1.0 / len(x), share)
        self.dim = x.shape[-1]
        centre = torch.einsum("kn,knd->nd", share, x)
        spread = x - centre
        whole = torch.einsum("kn,knd,kne->nde", share, spread, spread)
        plain = x.var(0).clamp(min=1e-12)
        whole = whole + torch.diag_embed(1e-4 * plain + 1e-12)
        self.means = self._spread_out(x, share, num_components)  # [M, n, D]
        narrower = num_components ** (-2 / self.dim)
        self.roots = _root(whole * narrower).expand(num_components, *whole.shape).clone()
        self.log_shares = x.new_full((num_components, x.shape[1]), -math.log(num_components))
        for _ in range(ROUNDS):
            self._improve(x, share, whole * narrower)

    def sample(self, num: int) -> Tensor:
        """Draws u `[num, n, D]`, float64, from torch's generator."""
        _, n, d = self.means.shape
        device = self.means.device
        picked = torch.multinomial(self.log_shares.exp().T, num, replacement=True).T  # [num, n]
        rows = torch.arange(n, device=device)
        noise = torch.randn(num, n, d, dtype=self.means.dtype, device=device)
        gamma = torch._standard_gamma(noise.new_full((num, n), DF / 2)) / (DF / 2)
        moved = torch.einsum("knde,kne->knd", self.roots[picked, rows], noise)
        return self.means[picked, rows] + moved / gamma.sqrt().unsqueeze(-1)

    def select(self, rows: Tensor) -> StudentMixture:
        """The mixtures of some data, by their places among the n."""
        part = copy.copy(self)
        part.means, part.roots = self.means[:, rows], self.roots[:, rows]
        part.log_shares = self.log_shares[:, rows]
        return part

    def log_prob(self, u: Tensor) -> Tensor:
        """ln q(u) `[K, n]` at u `[K, n, D]`, float64, nats."""
        return torch.logsumexp(self._terms(u.double()), 0)

    def _terms(self, u: Tensor) -> Tensor:
        """ln pi_m t(u; m) `[M, K, n]`."""
        half = (DF + self.dim) / 2
        constant = math.lgamma(half) - math.lgamma(DF / 2) - self.dim / 2 * math.log(DF * math.pi)
        terms = []
        for log_share, mean, root in zip(self.log_shares, self.means, self.roots, strict=True):
            log_det = torch.diagonal(root, dim1=-2, dim2=-1).log().sum(-1)
            terms.append(log_share + constant - log_det - half * torch.log1p(_distance(u, mean, root) / DF))
        return torch.stack(terms)

    def _spread_out(self, x: Tensor, share: Tensor, number: int) -> Tensor:
        """Starting means among the weighted draws, far from each other (k-means++), `[M, n, D]`."""
        rows = torch.arange(x.shape[1], device=x.device)
        scale = x.std(0).clamp(min=1e-12)
        means, chance = [], share
        for _ in range(number):
            found = torch.multinomial((chance + 1e-300).T, 1)[:, 0]
            means.append(x[found, rows])
            far = torch.stack([((x - m) / scale).square().sum(-1) for m in means]).amin(0)
            chance = share * far
        return torch.stack(means)

    def _improve(self, x: Tensor, share: Tensor, whole: Tensor) -> None:
        """One round, in place; a component of few effective draws is drawn towards the covariance of all."""
        terms = self._terms(x)
        belongs = share * (terms - torch.logsumexp(terms, 0)).exp().nan_to_num(0.0)  # [M, K, n]
        total = belongs.sum(1)
        for m in range(len(self.means)):
            near = belongs[m] * (DF + self.dim) / (DF + _distance(x, self.means[m], self.roots[m]))
            mean = torch.einsum("kn,knd->nd", near, x) / near.sum(0).clamp(min=1e-300).unsqueeze(-1)
            mean = torch.where((near.sum(0) > 0).unsqueeze(-1), mean, self.means[m])
            spread = x - mean
            moment = torch.einsum("kn,knd,kne->nde", near, spread, spread)
            draws = total[m].square() / belongs[m].square().sum(0).clamp(min=1e-300)
            prior = self.dim + 2.0
            weight = (draws / total[m].clamp(min=1e-300)).reshape(-1, 1, 1)
            wide = (moment * weight + prior * whole) / (draws + prior).reshape(-1, 1, 1)
            self.means[m], self.roots[m] = mean, _root(wide)
        share_of = (total + 0.01 / len(self.means)) / (1.01)
        self.log_shares = (share_of / share_of.sum(0)).log()


def _distance(x: Tensor, mean: Tensor, root: Tensor) -> Tensor:
    """Squared Mahalanobis distance `[K, n]`."""
    columns = (x - mean).permute(1, 2, 0)
    return torch.linalg.solve_triangular(root, columns, upper=False).square().sum(1).T


def _root(covariance: Tensor) -> Tensor:
    """Cholesky factor; of a matrix that has none, that of its diagonal."""
    root, failed = torch.linalg.cholesky_ex(covariance)
    diagonal = torch.diagonal(covariance, dim1=-2, dim2=-1).clamp(min=1e-24)
    return torch.where((failed != 0).reshape(-1, 1, 1), torch.diag_embed(diagonal.sqrt()), root)
