"""The measured KL from the data's law to a model, against exact values."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import LowRankMultivariateNormal

import pyrovae as pv
from pyrovae.data import IsingTorus
from pyrovae.models.linear_gaussian import LinearGaussian


def independent(probability):
    """Bits that ignore their latent: ln w = ln p(x) exactly."""

    def model(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            pyro.sample("x", dist.Bernoulli(torch.full_like(x, probability)).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))

    return model, guide


def gaussian():
    data = pv.data.load("linear-gaussian")
    W, b, psi = (data.parameters[k] for k in ("W", "b", "psi"))
    model = LinearGaussian(1.1 * W.float(), b.float() + 0.05, 1.2 * psi.float())
    law = LowRankMultivariateNormal(b, W, psi)
    other = LowRankMultivariateNormal(
        model.bias.double(), model.weight.double(), model.log_noise.double().exp()
    )
    return data, model, float(pv.divergences.kl(law, other))


def test_independent_spins_against_the_exact_entropy():
    data = pv.data.load("ising", L=4, T=2.0, train=10, valid=10, test=3000)
    result = pv.divergences.forward_kl(data, *independent(0.5), estimator=pv.IS(2))
    exact = 16 * math.log(2) - IsingTorus(4, 2.0).entropy  # 8.03, the independent-spin yardstick
    assert exact == pytest.approx(8.03, abs=0.005)
    assert 0 < result.se_data < 0.1
    assert abs(float(result) - exact) < 4 * result.se_data
    assert result.se_mc < 1e-4
    assert result.direction == ">="


def test_gaussian_against_the_closed_form():
    data, model, exact = gaussian()
    result = pv.divergences.forward_kl(data, model.model, model.guide, split="train", estimator=pv.IS(10))
    assert exact > 0.1
    assert abs(result.value - exact) < 4 * result.se_data
    # Paired: the spread of ln p_data itself has gone.
    unpaired = float(result.estimate.per_datum.std()) / len(data.train) ** 0.5
    assert result.se_data < 0.5 * unpaired
    assert result.per_datum.shape == (2000,)
    assert "KL(p_data ‖ p) ≤" in repr(result)  # the estimate overstates it


def test_a_lower_bound_overstates_and_its_bias_is_told():
    data, model, _ = gaussian()

    def loose(x):
        with pyro.plate("data", len(x)):
            q = model.posterior(x)
            pyro.sample("z", dist.MultivariateNormal(q.loc, 1.5 * q.covariance_matrix))

    exact = pv.divergences.forward_kl(data, model.model, model.guide, estimator=pv.IS(2))
    elbo = pv.divergences.forward_kl(data, model.model, loose, estimator=pv.ELBO())
    weighted = pv.divergences.forward_kl(data, model.model, loose, estimator=pv.IS(20))
    # KL(N(m, 1.5 C) ‖ N(m, C)) in four dimensions is what the ELBO misses
    gap = 0.5 * 4 * (1.5 - 1 - math.log(1.5))
    assert abs(elbo.value - exact.value - gap) < 4 * elbo.se_mc
    assert exact.value < weighted.value < elbo.value
    assert weighted.bias > 0
    assert abs(weighted.value - weighted.bias - exact.value) < 4 * weighted.se_mc
    assert elbo.direction == weighted.direction == ">="
    assert pv.divergences.forward_kl(data, model.model, loose, estimator=pv.Jackknife(50)).direction == "~"


def test_a_density_of_the_user():
    data, model, _ = gaussian()
    by_data = pv.divergences.forward_kl(data, model.model, model.guide, estimator=pv.IS(2))
    law = LowRankMultivariateNormal(*(data.parameters[k] for k in ("b", "W", "psi")))
    by_user = pv.divergences.forward_kl(
        data.test,
        model.model,
        model.guide,
        log_density=lambda x: law.log_prob(x.double()),
        estimator=pv.IS(2),
    )
    assert torch.equal(by_user.per_datum, by_data.per_datum)


def test_the_law_of_spins_is_a_mass_and_no_density_is_compared_with_it():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z.unsqueeze(-1), 0.1).expand(x.shape).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    data = pv.data.load("ising", L=2, train=10, valid=5, test=5)
    with pytest.raises(ValueError, match=r"the law of the data, a probability mass .*Normal at 'x'"):
        pv.divergences.forward_kl(data, model, guide, estimator=pv.IS(2))


def test_bad_input():
    model, guide = independent(0.5)
    with pytest.raises(ValueError, match="know their own law"):
        pv.divergences.forward_kl(torch.ones(3, 4), model, guide)
    with pytest.raises(ValueError, match="know their own law"):
        pv.divergences.forward_kl(pv.data.load("digits"), model, guide)
    with pytest.raises(ValueError, match="got shape"):
        pv.divergences.forward_kl(torch.ones(3, 4), model, guide, log_density=lambda x: torch.zeros(3, 4))
    with pytest.raises(ValueError, match="not finite"):
        pv.divergences.forward_kl(
            torch.ones(3, 4), model, guide, log_density=lambda x: torch.full((3,), -math.inf)
        )
    with pytest.raises(ValueError, match="expected a split"):
        pv.divergences.forward_kl(pv.data.load("linear-gaussian"), model, guide, split="tset")
