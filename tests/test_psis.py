"""Pareto fits of all data at once against the algorithm of the papers in NumPy, and that against ArviZ."""

import math

import arviz
import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from pyrovae.evidence.weights.diagnostics import pareto_khat, smoothed_log_weights

F64 = torch.float64


def psis(log_weights, size):
    """(smoothed log-weights, k-hat) of one datum, by the largest `size` weights: Vehtari et al. 2024, appendix."""
    x = log_weights - log_weights.max()
    cutoff = max(np.sort(x)[-size - 1], np.log(np.finfo(float).tiny))
    tail = np.flatnonzero(x > cutoff)
    tail = tail[np.argsort(x[tail])]
    n = len(tail)
    if n < 5:
        return x - logsumexp(x), math.inf
    excess = np.exp(x[tail]) - np.exp(cutoff)
    m = 30 + int(n**0.5)
    theta = 1 / excess[-1] + (1 - np.sqrt(m / (np.arange(m) + 0.5))) / (3 * excess[int(n / 4 + 0.5) - 1])
    k = np.log1p(-np.outer(theta, excess)).mean(1)
    profile = n * (np.log(-theta / k) - k - 1)
    weight = np.exp(profile - logsumexp(profile))
    weight[weight < 10 * np.finfo(float).eps] = 0
    theta = float(theta @ weight / weight.sum())
    k = float(np.log1p(-theta * excess).mean())
    sigma, k = -k / theta, (n * k + 5) / (n + 10)
    quantile = sigma * np.expm1(-k * np.log1p(-(np.arange(n) + 0.5) / n)) / k
    x[tail] = np.minimum(np.log(quantile + np.exp(cutoff)), 0.0)
    return x - logsumexp(x), k


def tail_size(num_samples):
    """Weights in the tail, as in the paper and in R's loo."""
    return math.ceil(min(num_samples / 5, 3 * num_samples**0.5))


def arviz_psis(log_weights):
    """(smoothed log-weights, k-hat) by ArviZ, and how many weights it takes: 1.3 one less than the paper."""
    if hasattr(arviz, "psislw"):
        return *arviz.psislw(np.maximum(log_weights, log_weights.max() - 1e3)), tail_size(len(log_weights))
    from arviz_stats.base import array_stats  # takes log-likelihoods

    size = int(array_stats._get_ps_tails(len(log_weights), 1.0, tail="right"))
    return *array_stats.psislw(-log_weights), size


def tails(num_samples):
    """Log-weights `[K, 3]` by name."""
    g = torch.Generator().manual_seed(num_samples)

    def normal():
        return torch.randn(num_samples, 3, generator=g, dtype=F64)

    def uniform():
        return torch.rand(num_samples, 3, generator=g, dtype=F64)

    half = torch.where(torch.arange(num_samples)[:, None] < num_samples // 2, normal(), -math.inf)
    seven = torch.where(torch.arange(num_samples)[:, None] < 7, normal(), -math.inf)
    return {
        "light": -uniform(),
        "narrow": 0.02 * normal(),
        "normal": normal(),
        "heavy": -0.9 * uniform().log(),
        "no mean": -2 * uniform().log(),
        "huge": 300 * normal(),
        "far away": 1e7 + 0.1 * normal(),
        "half are zero": half,
        "seven are not zero": seven,
    }


@pytest.mark.parametrize("num_samples", [25, 26, 200, 1000, 5000])
def test_khat_and_smoothing_are_those_of_the_paper(num_samples):
    for name, lw in tails(num_samples).items():
        khat, (smooth, _) = pareto_khat(lw), smoothed_log_weights(lw)
        for n in range(lw.shape[1]):
            weights, expected = psis(lw[:, n].numpy().copy(), tail_size(num_samples))
            assert float(khat[n]) == pytest.approx(expected, abs=1e-6), name
            np.testing.assert_allclose(
                smooth[:, n].softmax(0), np.exp(weights), rtol=1e-6, atol=1e-12, err_msg=name
            )


@pytest.mark.parametrize("num_samples", [200, 3000])
@pytest.mark.parametrize("name", ["light", "narrow", "normal", "heavy", "no mean", "far away"])
def test_the_paper_is_read_as_arviz_reads_it(name, num_samples):
    for lw in tails(num_samples)[name].T.numpy():
        weights, khat, size = arviz_psis(lw.copy())
        assert abs(size - tail_size(num_samples)) <= 1
        expected, k = psis(lw.copy(), size)
        assert float(khat) == pytest.approx(k, abs=1e-6)
        np.testing.assert_allclose(np.exp(weights), np.exp(expected), rtol=1e-6, atol=1e-12)


def test_ties_and_degenerate_tails():
    g = torch.Generator().manual_seed(0)
    few = 0.3 * torch.randint(0, 40, (3000, 3), generator=g).double()
    for n in range(3):
        assert float(pareto_khat(few)[n]) == pytest.approx(
            psis(few[:, n].numpy(), tail_size(3000))[1], abs=1e-6
        )
    one = torch.full((1000, 1), -math.inf, dtype=F64)
    assert pareto_khat(one) == math.inf  # all are zero
    one[3] = 0.0
    assert pareto_khat(one) == math.inf  # one is all
    # The tail is one value, many times: only the fit's prior is left.
    tied = torch.zeros(5000, 1, dtype=F64)
    tied[:100] = 1.0
    assert torch.isfinite(pareto_khat(tied)).all()


def test_a_block_is_its_data_one_by_one():
    g = torch.Generator().manual_seed(0)
    lw = 2 * torch.randn(600, 700, generator=g, dtype=F64)
    lw[50:, ::7] = -math.inf
    alone = torch.cat([pareto_khat(lw[:, n : n + 1]) for n in range(0, 700, 50)])
    torch.testing.assert_close(pareto_khat(lw)[::50], alone, rtol=1e-12, atol=1e-12)
