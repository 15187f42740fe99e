"""Missing values: the evidence of what is there, and what is drawn for the rest, against exact answers."""

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import kstest, multivariate_normal, norm
from torch import nn

import pyrovae as pv
from pyrovae import guides, likelihoods, networks, priors
from pyrovae.models.vae import VAE

D, LATENT, N = 4, 2, 60


class ExactGuide(nn.Module):
    """The posterior of a linear-Gaussian model given the numbers of x that are there."""

    latent_dim = LATENT

    def __init__(self, weight, bias, noise):
        super().__init__()
        self.weight, self.bias, self.noise = weight, bias, noise

    def forward(self, x):
        held = (~x.isnan()).to(x)
        scaled = held[..., None] * self.weight / self.noise[:, None]
        precision = torch.eye(LATENT, dtype=x.dtype) + scaled.mT @ self.weight
        u = (scaled.mT @ (x.nan_to_num(0.0) - self.bias)[..., None])[..., 0]
        return dist.MultivariateNormal(torch.linalg.solve(precision, u), precision_matrix=precision)


class Affine(nn.Module):
    out_features = D

    def __init__(self, weight, bias):
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, z):
        return z @ self.weight.T + self.bias


def linear_gaussian(exact=True):
    """Model and guide in float64, data with missing values, mean and covariance of whole data."""
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(D, LATENT, generator=random, dtype=torch.float64)
    bias = torch.arange(D, dtype=torch.float64)
    noise = torch.tensor([0.5, 1.0, 0.2, 0.8], dtype=torch.float64)
    covariance = weight @ weight.T + noise.diag()
    x = bias + torch.randn(N, D, generator=random, dtype=torch.float64) @ torch.linalg.cholesky(covariance).T
    x[torch.rand(N, D, generator=random) < 0.3] = torch.nan
    x[0] = torch.nan
    x[1] = bias + 1
    gaussian = likelihoods.Gaussian(Affine(weight, bias), noise.sqrt(), event_shape=(D,)).double()
    gaussian.log_scale.copy_(noise.log() / 2)  # in all digits
    likelihood = likelihoods.PartiallyObserved(gaussian, bias)
    if exact:
        q = ExactGuide(weight, bias, noise)
    else:
        torch.manual_seed(0)
        q = guides.DiagonalGaussian(
            networks.MLP(2 * D, (16,), preprocess=networks.TableInputs([0] * D, missing=True)), LATENT
        ).double()
    vae = VAE(prior=priors.StandardNormal(LATENT).double(), likelihood=likelihood, guide=q)
    return vae, x, bias.numpy(), covariance.numpy()


def exact_log_evidence(x, mean, covariance):
    """ln p of the numbers that are there, by SciPy."""
    found = []
    for row in x.numpy():
        held = ~np.isnan(row)
        found.append(
            multivariate_normal(mean[held], covariance[np.ix_(held, held)]).logpdf(row[held])
            if held.any()
            else 0.0
        )
    return np.array(found)


def test_the_evidence_is_that_of_what_is_there():
    vae, x, mean, covariance = linear_gaussian()
    log_weights = pv.log_weights(vae.model, vae.guide, x, num_samples=5)
    exact = exact_log_evidence(x, mean, covariance)
    # Under the exact posterior every weight is p(x).
    np.testing.assert_allclose(log_weights.numpy(), np.broadcast_to(exact, (5, N)), rtol=0, atol=1e-10)
    assert exact[0] == 0.0 and float(log_weights[:, 0].abs().max()) < 1e-12


def test_importance_sampling_with_a_guide_that_is_told_what_is_missing():
    vae, x, mean, covariance = linear_gaussian(exact=False)
    ev = pv.evidence(vae.model, vae.guide, x, estimators=[pv.ELBO(20), pv.IS(20000)], seed=1)
    exact = exact_log_evidence(x, mean, covariance)
    e = ev["IS"]
    assert abs(e.log_evidence - exact.mean()) < 4 * e.se_mc + 1e-3
    assert ev["ELBO"].log_evidence < exact.mean()
    assert f"{100 * float(x.isnan().double().mean()):.3g} % of them missing" in ev.table("markdown")
    dims = float((~x.isnan()).sum()) / N
    bits = -e.log_evidence / dims / np.log(2)
    assert f"{bits:.4f}" in ev.table("markdown")


def test_draws_follow_the_exact_conditional_law():
    vae, x, mean, covariance = linear_gaussian()
    found = pv.impute(vae.model, vae.guide, x, num_samples=4000, num_draws=4000, level=0.8)
    assert bool((found.draws == x)[:, ~found.missing].all()) and not found.draws.isnan().any()
    assert found.khat[1].isnan() and not found.khat[0].isnan()
    for row in (0, int(found.missing[2:].any(1).nonzero()[0]) + 2):
        held = ~np.isnan(x[row].numpy())
        gone = ~held
        gain = covariance[np.ix_(gone, held)] @ np.linalg.inv(covariance[np.ix_(held, held)])
        location = mean[gone] + gain @ (x[row].numpy()[held] - mean[held])
        spread = np.sqrt(np.diag(covariance[np.ix_(gone, gone)] - gain @ covariance[np.ix_(held, gone)]))
        drawn = found.draws[:, row][:, gone].numpy()
        for i in range(gone.sum()):
            # 4000 draws, of which resampling repeats some: half as many count.
            assert kstest(drawn[:, i], norm(location[i], spread[i]).cdf).statistic < 2.2 / np.sqrt(2000)
        np.testing.assert_allclose(
            found.mean[row].numpy()[gone], location, atol=4 * spread.max() / np.sqrt(2000)
        )
        np.testing.assert_allclose(
            found.high[row].numpy()[gone],
            location + spread * norm.ppf(0.9),
            atol=7 * spread.max() / np.sqrt(2000),
        )


def test_gradients_of_missing_values_are_finite():
    torch.manual_seed(0)
    p_x = likelihoods.PartiallyObserved(likelihoods.LogNormal(networks.MLP(1, (4,), 4)), torch.ones(2))
    q = guides.DiagonalGaussian(
        networks.MLP(4, (4,), preprocess=networks.TableInputs([0, 0], missing=True)), 1
    )
    vae = VAE(prior=priors.StandardNormal(1), likelihood=p_x, guide=q)
    x = torch.tensor([[1.0, torch.nan], [torch.nan, torch.nan], [0.5, 2.0]])
    z = q(x).rsample()
    (p_x(z).log_prob(x).sum() + z.sum()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vae.parameters())
    assert p_x(z).log_prob(x)[1] == 0


def test_programs_that_do_not_mask_are_refused():
    x = torch.tensor([[1.0, torch.nan], [0.0, 1.0]])
    vae = VAE(
        prior=priors.StandardNormal(1),
        likelihood=likelihoods.Gaussian(networks.MLP(1, (4,), 2)),
        guide=guides.DiagonalGaussian(
            networks.MLP(4, (4,), preprocess=networks.TableInputs([0, 0], missing=True)), 1
        ),
    )
    for ask in (
        lambda: pv.fit(vae.model, vae.guide, x, epochs=1),
        lambda: pv.impute(vae.model, vae.guide, x),
    ):
        with pytest.raises(ValueError, match="NaN"):
            ask()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"level": 1.0}, "level"), ({"num_draws": 0}, "num_draws"), ({"num_samples": 10}, "num_draws")],
)
def test_questions_that_are_refused(options, words):
    vae, x, *_ = linear_gaussian()
    with pytest.raises(ValueError, match=words):
        pv.impute(vae.model, vae.guide, x, **options)
    with pytest.raises(ValueError, match="nothing to impute"):
        pv.impute(vae.model, vae.guide, x.nan_to_num(0.0))


def test_data_with_missing_values():
    x = np.arange(40.0).reshape(20, 2) / 7
    x[3, 1] = np.nan
    with pytest.raises(ValueError, match="--missing ignore"):
        pv.data.load(x)
    data = pv.data.load(x, missing="ignore")
    parts = [data.train, data.valid, data.test]
    assert sum(int(p.isnan().sum()) for p in parts) == 1
    share = {n: float(data.split(n).isnan().double().mean()) for n in ("train", "valid", "test")}
    assert data.spec.missing == share
    assert pv.data.DataSpec.from_json(data.spec.to_json()) == data.spec
    whole = pv.data.prepared(data)
    assert not whole.train.isnan().any() and pv.data.prepared(whole) is whole
    assert pv.data.load(x, missing="ignore").spec.hash == data.spec.hash
    x[:, 1] = np.nan
    with pytest.raises(ValueError, match="some training row"):
        pv.data.load(x, missing="ignore")
    x[0, 0] = np.inf
    with pytest.raises(ValueError, match="infinite"):
        pv.data.load(x, missing="ignore")
    with pytest.raises(ValueError, match="rows"):
        pv.data.load(np.full((20, 2, 2), np.nan), missing="ignore")
