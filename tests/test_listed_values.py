"""Discrete latents of an inner plate, summed out one element after the other, or refused."""

import functools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import config_enumerate
from scipy.stats import binom, norm

import pyrovae as pv

P = torch.tensor([0.2, 0.5, 0.7])


def bits_of_a_sum(x):
    with pyro.plate("data", len(x), dim=-2):
        with pyro.plate("bits", 3, dim=-1):
            z = pyro.sample("z", dist.Bernoulli(P))
        pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 0.5), obs=x.unsqueeze(-1))


def bits_in_a_row(x):
    with pyro.plate("data", len(x), dim=-2), pyro.plate("bits", 3, dim=-1):
        z = pyro.sample("z", dist.Bernoulli(P))
        pyro.sample("x", dist.Normal(z + z.roll(1, -1), 0.5), obs=x.unsqueeze(-1))


def bits_of_a_product(x):
    with pyro.plate("data", len(x), dim=-2):
        with pyro.plate("bits", 3, dim=-1):
            z = pyro.sample("z", dist.Bernoulli(P))
        pyro.sample("x", dist.Normal(z @ torch.ones(3, 1), 0.5), obs=x.unsqueeze(-1))


def bits_apart(x):
    with pyro.plate("data", len(x), dim=-2), pyro.plate("bits", 3, dim=-1):
        z = pyro.sample("z", dist.Bernoulli(P))
        pyro.sample("x", dist.Normal(z, 0.5), obs=x.unsqueeze(-1))


def bits_of_the_guide(x, how=None):
    with pyro.plate("data", len(x), dim=-2), pyro.plate("bits", 3, dim=-1):
        pyro.sample("z", dist.Bernoulli(0.5 * torch.ones(len(x), 3)), infer={"enumerate": how})


SUMS = torch.tensor([0.0, 1.0, 2.0, 3.3])


@pytest.mark.parametrize("model", [bits_of_a_sum, bits_in_a_row, bits_of_a_product])
@pytest.mark.parametrize("x", [SUMS, torch.zeros(4), SUMS[:1]])
def test_what_mixes_elements_of_a_plate_is_not_summed_one_by_one(model, x):
    """Listed values have size 1 in the plate: the sum over it was that of one bit, up to ten nats off, as "exact"."""
    ev = pv.evidence(model, bits_of_the_guide, x, estimators=[pv.IS(200), pv.Exact()], progress=False)
    assert ev["IS"].per_datum.isfinite().all() and "of size 1 in its plates" in ev.refused["Exact"]
    asked_for = (
        (model, functools.partial(bits_of_the_guide, how="parallel")),
        (config_enumerate(model), lambda x: None),
    )
    for pair in asked_for:
        with pytest.raises(
            ValueError, match=r"of size 1 in its plates|shapes cannot be multiplied|broadcasts"
        ):
            pv.log_weights(*pair, x, num_samples=5)


def test_elements_that_stay_apart_are_summed_one_by_one():
    ones, zeros = (norm.pdf(SUMS.double().numpy()[:, None], v, 0.5) for v in (1.0, 0.0))
    p = P.double().numpy()
    right = torch.tensor(np.log(p * ones + (1 - p) * zeros).sum(-1))
    found = pv.evidence(bits_apart, bits_of_the_guide, SUMS, estimators=[pv.Exact()])["Exact"].per_datum
    torch.testing.assert_close(found, right, rtol=0, atol=1e-6)


def test_a_total_that_is_summed_out_itself_and_a_site_that_the_guide_draws_are_served():
    def model(x):
        with pyro.plate("data", len(x)):
            n = pyro.sample("n", dist.Categorical(torch.tensor([0.2, 0.3, 0.5])))
            k = pyro.sample("k", dist.Binomial(n.to(x.dtype) + 1, 0.4))
            pyro.sample("x", dist.Normal(k, 1.0), obs=x)

    y = SUMS.double().numpy()
    terms = [
        w * binom.pmf(k, n + 1, 0.4) * norm.pdf(y, k, 1)
        for n, w in enumerate((0.2, 0.3, 0.5))
        for k in range(n + 2)
    ]
    found = pv.log_weights(config_enumerate(model), lambda x: None, SUMS, num_samples=1)[0]
    np.testing.assert_allclose(found, np.log(sum(terms)), rtol=0, atol=2e-6)
    # The guide draws z, so that nothing is summed out, whatever the model is annotated with.
    lw = pv.log_weights(config_enumerate(bits_of_a_sum), bits_of_the_guide, SUMS[:3], num_samples=20_000)
    right = torch.tensor([-1.9500, -0.9236, -1.0294], dtype=torch.float64)
    torch.testing.assert_close(lw.logsumexp(0) - math.log(20_000), right, rtol=0, atol=0.06)
