"""Posterior draws by importance resampling, and ArviZ's own tools on them."""

import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray

import pyrovae as pv
from pyrovae.evidence.posterior import posterior
from pyrovae.export.containers import load_arviz
from pyrovae.export.posterior import posterior_to_arviz
from pyrovae.models import ground_truths as gt

from . import handwritten as hw

arviz = load_arviz()
F64 = torch.float64


def test_resampled_draws_are_the_posterior():
    """Moments of the conjugate posterior, from a guide that has neither."""
    truth = gt.gamma_poisson(10)
    p = posterior(truth.model, truth.guide, truth.x, num_samples=4000)
    exact = dist.Gamma(2.0 + truth.x, 1.5)
    assert p.draws["rate"].shape == p.resampled["rate"].shape == (4000, 10)
    assert repr(p).startswith(
        "PosteriorDraws(rate [4000, 10]; ESS "
    ) and f"{float(p.khat.max()):.2f})" in repr(p)
    z = p.resampled["rate"]
    # Resampling costs variance twice: of the weights, and of the draw among them.
    se = exact.stddev * (1 / p.ess + 1 / 4000).sqrt()
    assert (((z.mean(0) - exact.mean) / se).abs() < 4.5).all()
    raw = (p.draws["rate"].mean(0) - exact.mean) / (exact.stddev / math.sqrt(4000))
    assert raw.abs().max() > 4.5, "the guide's own draws are not"
    assert (p.khat < 0.7).all() and (p.ess > 200).all()
    lw = pv.evidence(truth.model, truth.guide, truth.x, estimators=[pv.IS(4000)])["IS"].per_datum
    own = p.log_weights.logsumexp(0) - math.log(4000)
    assert ((own - lw).abs() < 0.1).all()
    torch.testing.assert_close(p.log_likelihood["x"], dist.Poisson(z).log_prob(truth.x))


@pytest.mark.parametrize("name", ["inner_plate", "auxiliary", "enumerated_in_model", "with_context"])
def test_programs_of_every_shape(name):
    case = getattr(hw, name)()
    p = posterior(case.model, case.wrong, *case.args, num_samples=50)
    for z in p.resampled.values():
        assert z.shape[:2] == (50, hw.N)
    assert "noise" not in p.resampled, "auxiliary sites are the guide's own"
    assert bool(p.log_likelihood) == (name != "enumerated_in_model")
    torch.testing.assert_close(p.log_weights.logsumexp(0) - math.log(50), case.log_evidence, rtol=0, atol=1.5)
    assert p.to_arviz() is not None


@pytest.fixture(scope="module")
def tree():
    truth = gt.linear_gaussian(8, latent_dim=2)
    ev = pv.evidence(truth.model, truth.guide, truth.x, estimators=[pv.ELBO(), pv.IS(200)])
    draws = posterior(truth.model, truth.guide, truth.x, num_samples=400)
    return posterior_to_arviz(draws, ev), ev, draws


def group(tree, name):
    return tree[name].to_dataset() if isinstance(tree, xarray.DataTree) else tree[name]


def test_groups(tree):
    tree, ev, draws = tree
    post = group(tree, "posterior")
    assert post["z"].dims == ("chain", "draw", "datum", "z_dim_0") and post["z"].shape == (1, 400, 8, 2)
    np.testing.assert_array_equal(post["z"].values[0], draws.resampled["z"])
    weighted = group(tree, "weighted_posterior")
    np.testing.assert_array_equal(weighted["log_weights"].values[0], draws.log_weights)
    np.testing.assert_array_equal(group(tree, "sample_stats")["IS_log_evidence"], ev["IS"].per_datum)
    np.testing.assert_array_equal(group(tree, "observed_data")["x"], draws.x)
    assert tree.attrs["IS_mean"] == ev["IS"].log_evidence and tree.attrs["arviz"] == arviz.__version__
    with pytest.raises(ValueError, match="on other data"):
        posterior_to_arviz(draws, pv.evidence(gt.psis_tail().model, gt.psis_tail().guide, gt.psis_tail().x))


def test_arviz_tools_run(tree):
    """`az.summary`, `az.loo` and `az.plot_khat`, with the numbers they should give."""
    tree, _, draws = tree
    summary = arviz.summary(tree, var_names=["z"])
    assert len(summary) == 16
    mean = summary["mean"].astype(float).to_numpy().reshape(8, 2)
    np.testing.assert_allclose(mean, draws.resampled["z"].mean(0), atol=0.06)
    loo = arviz.loo(tree, pointwise=True)
    khat = np.asarray(loo.pareto_k)
    assert khat.shape == (8,) and np.isfinite(khat).all()
    assert arviz.plot_khat(loo) is not None
    # The same per datum by hand: the harmonic mean of the likelihood, which PSIS steadies.
    plain = -(torch.logsumexp(-draws.log_likelihood["x"], 0) - math.log(400))
    elpd = np.asarray(loo.loo_i if hasattr(loo, "loo_i") else loo.elpd_i)
    np.testing.assert_allclose(elpd, plain, atol=1.5)


def test_data_that_the_guide_never_hits():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=F64), 1.0))
            density = torch.where((x - z).abs() < 2, -math.log(4.0), -torch.inf)
            likelihood = dist.Delta(x.expand(density.shape), log_density=density, validate_args=False)
            pyro.sample("x", likelihood, obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))

    p = posterior(model, guide, torch.tensor([0.0, 50.0], dtype=F64), num_samples=100)
    assert torch.isfinite(p.resampled["z"]).all() and p.khat[1] == torch.inf and p.ess[1] == 0
    assert p.resampled["z"][:, 0].abs().max() < 2, "weights of zero are never picked"
