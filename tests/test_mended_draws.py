"""Laws whose draws torch and Pyro take from another density than their own."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv

DRAWS = 20_000


def t(*values):
    return torch.tensor(values, dtype=torch.float64).squeeze()


LAWS = {
    "LKJ of 3": [dist.LKJCholesky(3, t(c)) for c in (1.0, 1.5)],
    "LKJ of 4, expanded": [dist.LKJCholesky(4, t(c)).expand([2]) for c in (1.0, 1.3)],
    "LKJ, each of its own": [dist.LKJCholesky(3, t(*c)) for c in ((1.0, 3.0), (1.2, 4.0))],
    "torus": [
        dist.SineBivariateVonMises(t(0.3), t(-2.0), t(c), t(1.0), correlation=t(0.5)) for c in (2.0, 1.2)
    ],
    "tori": [
        dist.SineBivariateVonMises(t(0.3, 3.0), t(1.0), t(c, c / 4), t(1.0), correlation=t(0.5, -0.4))
        for c in (2.0, 1.2)
    ],
}


@pytest.mark.parametrize("name", LAWS)
def test_ratios_of_densities_average_to_one(name):
    """E_p[q / p] = 1, what every importance weight stands on."""
    p, q = LAWS[name]
    torch.manual_seed(0)
    draws = p.sample((DRAWS,))
    assert draws.shape == (DRAWS, *p.batch_shape, *p.event_shape)
    ratio = (q.log_prob(draws) - p.log_prob(draws)).exp().reshape(DRAWS, -1)
    assert ((ratio.mean(0) - 1).abs() < 4.5 * ratio.std(0) / math.sqrt(DRAWS)).all()


def test_draws_of_a_torus_have_the_moments_of_its_density():
    law = dist.SineBivariateVonMises(t(0.0), t(0.0), t(2.0), t(1.0), correlation=t(0.9))
    side = torch.arange(-math.pi, math.pi, 2 * math.pi / 200, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(side, side, indexing="ij"), -1).reshape(-1, 2)
    weights = law.log_prob(grid).softmax(0)
    torch.manual_seed(0)
    draws = law.sample((DRAWS,))
    for moment in (lambda z: z.cos(), lambda z: z.sin().prod(-1, keepdim=True)):
        right, got = (weights[:, None] * moment(grid)).sum(0), moment(draws)
        assert ((got.mean(0) - right).abs() < 4.5 * got.std(0) / math.sqrt(DRAWS)).all()


def test_the_evidence_of_correlations():
    """p(x) is 1/2 by symmetry: x is the sign of the correlation of the last two of three."""

    def draw(concentration, n):
        with pyro.plate("data", n):
            return pyro.sample("corr", dist.LKJCholesky(3, concentration))

    def model(x):
        with pyro.plate("data", len(x)):
            factor = pyro.sample("corr", dist.LKJCholesky(3, 1.0))
            positive = (factor[..., 1, :] * factor[..., 2, :]).sum(-1) > 0
            pyro.sample("x", dist.Bernoulli(probs=positive.float() * 0.98 + 0.01), obs=x)

    found = pv.evidence(
        model, lambda x: draw(1.5, len(x)), torch.tensor([0.0, 1.0]), estimators=[pv.IS(DRAWS)]
    )
    error = found["IS"].variance.sqrt()
    assert ((found["IS"].per_datum + math.log(2)).abs() < 4.5 * error).all() and (error < 0.02).all()
