"""Pareto fits of all data at once against ArviZ, datum by datum."""

import math

import arviz
import numpy as np
import pytest
import torch

from pyrovae.evidence.weights.diagnostics import pareto_khat, smoothed_log_weights

F64 = torch.float64


def arviz_psis(log_weights):
    """(smoothed log-weights, k-hat) of one datum; ArviZ 1.x takes log-likelihoods."""
    floored = np.maximum(log_weights, log_weights.max() - 1e3)
    if hasattr(arviz, "psislw"):
        return arviz.psislw(floored)
    from arviz_stats.base import array_stats

    return array_stats.psislw(-floored)


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
def test_khat_and_smoothing_are_those_of_arviz(num_samples):
    for name, lw in tails(num_samples).items():
        khat, (smooth, _) = pareto_khat(lw), smoothed_log_weights(lw)
        for n in range(lw.shape[1]):
            weights, expected = arviz_psis(lw[:, n].numpy().copy())
            assert float(khat[n]) == pytest.approx(float(expected), abs=1e-6), name
            np.testing.assert_allclose(
                smooth[:, n].softmax(0), np.exp(weights), rtol=1e-6, atol=1e-12, err_msg=name
            )


def test_ties_and_degenerate_tails():
    g = torch.Generator().manual_seed(0)
    few = 0.3 * torch.randint(0, 40, (3000, 3), generator=g).double()
    for n in range(3):
        if hasattr(arviz, "psislw"):
            assert float(pareto_khat(few)[n]) == pytest.approx(
                float(arviz_psis(few[:, n].numpy().copy())[1]), abs=1e-6
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
