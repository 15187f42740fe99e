"""Counts of a known factor model: its law against quadrature, and the walk in small."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import logsumexp
from scipy.stats import nbinom, norm

from pyrovae.inference.studies import count_factors
from pyrovae.inference.studies.count_factors import FactorLaw
from tests.small import FLAGS


def test_the_law_of_one_factor_agrees_with_quadrature():
    law = FactorLaw.random(30, 1, 0)
    x = law.draw(5, 1)
    found, error = law.log_density(x, 4000)
    for row, value, se in zip(x, found, error, strict=True):

        def log_joint(z, row=row):
            mean = np.exp(law.weight[:, 0] * z + law.bias)
            mass = nbinom.logpmf(row, law.dispersion, law.dispersion / (law.dispersion + mean)).sum()
            return mass + norm.logpdf(z)

        grid = np.linspace(-6, 6, 2001)
        top = max(map(log_joint, grid))
        area, _ = quad(
            lambda z, top=top, log_joint=log_joint: np.exp(log_joint(z) - top), -8, 8, limit=400, epsabs=1e-12
        )
        assert abs(value - np.log(area) - top) < 4.5 * se + 1e-9 and se < 0.03


def test_the_law_of_few_counts_sums_to_one():
    law = FactorLaw(np.array([[0.7]]), np.array([-1.0]))
    values, error = law.log_density(np.arange(80)[:, None], 3000)
    assert logsumexp(values) == pytest.approx(0.0, abs=4.5 * float((np.exp(values) * error).max()) * 9 + 1e-3)


def test_the_walk_in_small(tmp_path, capsys):
    argv = ["--out", str(tmp_path), "--cells", "100", "--genes", "20", "--factors", "2", "--latent-dim", "2"]
    argv += ["--hidden", "8", "--epochs", "3", "--num-samples", "50"]
    assert count_factors.main([*argv, *FLAGS]) == 0
    said = capsys.readouterr().out
    assert "poisson" in said and "negative-binomial" in said and "the law itself" in said
    assert {p.name for p in tmp_path.iterdir()} == {"counts.npz", "counts.md", "counts.png"}
    with np.load(tmp_path / "counts.npz") as kept:
        assert kept["x"].shape == (100, 20)
