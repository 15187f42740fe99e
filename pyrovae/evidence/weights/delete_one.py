"""Monte-Carlo variances by leaving out one sample: of the log of a mean weight, and of its jackknife."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Weights whose pairs are summed one by one; all others enter by power sums, in which the largest
# ratio is 1 / TOP: what POWERS of them leave out is below TOP^-POWERS, 1e-9 of a term.
TOP = 8
POWERS = 10


def log_rest(log_weights: Tensor) -> Tensor:
    """ln(1 - w_i / S) for each of the weights, `[K, N]`: L_{-i} = ln S + this - ln(K-1), in O(K).

    Where one weight holds nearly all of S, the difference S - w_i is re-summed without it, since
    subtraction would cancel.
    """
    lw = log_weights.double()
    total = torch.logsumexp(lw, 0)
    share = (lw - total).exp()
    rest = torch.log1p(-share.clamp(max=1 - 1e-16))
    top = lw.argmax(0, keepdim=True)
    without = torch.logsumexp(lw.scatter(0, top, -torch.inf), 0) - total
    return rest.scatter(0, top, without.unsqueeze(0))


def is_variance(log_weights: Tensor) -> Tensor:
    """Variance of L_K = ln (1/K) sum_k w_k, (K-1)^2 Var_i(L_{-i}) / K, `[K, N]` to `[N]`, nats squared.

    Var_i has K - 1 in its denominator. In expectation it is no smaller than the variance of L_{K-1}, whatever
    the law of the weights (Efron & Stein 1981, https://doi.org/10.1214/aos/1176345462), where the delta method's
    1/ESS - 1/K is never above 1 - 1/K. Infinite where all but one weight are zero; NaN for K = 1, and where all
    are zero.
    """
    k = len(log_weights)
    if k < 2:
        return torch.full_like(log_weights[0], torch.nan, dtype=torch.float64)
    lw = log_weights.double()
    return _variance((k - 1) * log_rest(lw), ~lw.isneginf(), 2)


def stratified_variance(log_weights: Tensor, strata: Tensor) -> Tensor:
    """Variance of L_K where draws come in fixed numbers from several densities, `[K, N]` to `[N]`, nats squared.

    sum_c (n_c - 1)^2 Var_{i in c}(L_{-i}) / n_c, with L_{-i} the estimate where draw i of its n_c is left out and the
    others stand for it. Between the means of strata there is no variance: `is_variance` would state too much.

    Args:
        log_weights: `[K, N]`.
        strata: which density a draw is of, `[K]`; at least two draws each.
    """
    lw = log_weights.double()
    share = (lw - torch.logsumexp(lw, 0)).exp()
    out = torch.zeros_like(share[0])
    for stratum in strata.unique():
        own = share[strata == stratum]
        n = len(own)
        change = (own.sum(0) - n * own) / (n - 1)
        out += (n - 1) ** 2 / n * torch.log1p(change.clamp(min=-1 + 1e-16)).var(0)
    return out


def jackknife_variance(log_weights: Tensor) -> Tensor:
    """Variance of J = K L_K - (K-1) mean_i L_{-i}, `[K, N]` to `[N]`, nats squared, in O(K).

    (K-1)^2 Var_j(J_{-j}) / K, where J_{-j} is the jackknife of the K - 1 samples without j: it needs all
    L_{-ij}. The variance of the pseudo-values K L_K - (K-1) L_{-i} is that of L_K, and too small for J where
    weights are uneven. Infinite where all but two weights are zero; NaN for K < 3, and where all are zero.
    """
    lw = log_weights.double()
    k = len(lw)
    if k < 3:
        return torch.full_like(lw[0], torch.nan)
    total = torch.logsumexp(lw, 0)
    share = (lw - total).exp()
    rest = log_rest(lw)  # ln(1 - a_j)
    m = min(TOP, k)
    top = lw.topk(min(m + 1, k), 0)
    first = top.indices[:m]
    without = (torch.logsumexp(lw.scatter(0, first[:2], -torch.inf), 0) - total).exp()
    # sum_{i != j} ln(1 - a_i - a_j): of the largest i one by one, ...
    pairs = torch.zeros_like(lw)
    for i in range(m):
        row = first[i : i + 1]
        both = rest.gather(0, row).exp() - share
        # The largest may hold nearly all: what is left without it is not had from a difference to 1.
        if i < 2:
            both = both.scatter(0, first[1 - i : 2 - i], without.unsqueeze(0))
        else:
            left = rest.gather(0, first[:1]).exp() - share.gather(0, row)
            both = both.scatter(0, first[:1], left)
        pairs += both.clamp(min=0).log().scatter(0, row, 0.0)
    # ... of all others as sum ln(1 - a_j) + ln(1 - a_i / (1 - a_j)), by powers, less the term i = j.
    if k > m:
        is_small = torch.ones_like(lw).scatter(0, first, 0.0)
        pairs += (k - m - is_small) * rest
        largest = top.values[m]
        ratio = (lw - largest).exp().nan_to_num(0.0) * is_small
        scale = (largest - total - rest).exp().nan_to_num(0.0)
        powers, scales = ratio, scale
        for p in range(1, POWERS + 1):
            pairs -= powers.sum(0) * scales / p
            powers, scales = powers * ratio, scales * scale
        pairs -= torch.log1p(-ratio * scale)
    # J_{-j} = (K-1) L_{-j} - (K-2)/(K-1) sum_{i != j} L_{-ij}, up to what all j have in common
    return _variance((k - 1) ** 2 * rest - (k - 2) * pairs, share > 0, 3)


def _variance(deleted: Tensor, counted: Tensor, least: int) -> Tensor:
    """Var_j / K of (K-1) times the delete-one values, `[K, N]`; infinite for fewer weights than `least` above zero."""
    some = counted.sum(0)
    return (deleted.var(0) / len(deleted)).masked_fill((some > 0) & (some < least), torch.inf)


def jackknife_shift(log_weights: Tensor) -> Tensor:
    """Jackknife estimate minus IS estimate, (K-1) (L_K - mean_i L_{-i}), `[K, N]` to `[N]`, in nats.

    NaN for K = 1, and where fewer than two weights are not zero.
    """
    k = len(log_weights)
    if k < 2:
        return torch.full_like(log_weights[0], torch.nan, dtype=torch.float64)
    # L_K - mean_i L_{-i} = -ln K + ln(K-1) - mean_i ln(1 - share_i)
    shift = (k - 1) * (math.log1p(-1 / k) - log_rest(log_weights).mean(0))
    return shift.masked_fill(shift.isinf(), torch.nan)
