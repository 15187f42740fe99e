"""A datum's density must not depend on where it stands, nor on the data beside it."""

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv

X = torch.linspace(-2.0, 3.0, 6)
SCALES = torch.linspace(0.3, 3.0, 6)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 1.0))


def model_of(size, observed, loc=lambda z, x: z):
    def model(x):
        with pyro.plate("data", size or len(x), subsample_size=len(x)) as i:
            z = pyro.sample("z", dist.Normal(x.new_tensor(0.0), 1.0))
            pyro.sample("x", dist.Normal(loc(z, x), observed(i)), obs=x)

    return model


@pytest.mark.parametrize("size", [None, 6])
def test_what_the_plate_indexes_belongs_to_its_datum(size):
    model = model_of(size, lambda i: SCALES[i])
    truth = dist.Normal(0.0, (1 + SCALES**2).sqrt()).log_prob(X)
    for chunk in (None, pv.Chunk(2, 500)):
        weights = pv.log_weights(model, guide, X, num_samples=4000, chunk=chunk)
        found = weights.logsumexp(0) - torch.tensor(4000.0).log()
        assert (found - truth).abs().max() < 0.1


def test_parameters_of_the_guide_that_the_plate_indexes():
    def own(x):
        loc = pyro.param("loc", lambda: X / 2)
        with pyro.plate("data", len(x)) as i:
            pyro.sample("z", dist.Normal(loc[i], 0.5**0.5))

    model = model_of(None, lambda i: 1.0)
    weights = pv.log_weights(model, own, X, num_samples=3, chunk=pv.Chunk(2, 3))
    assert (weights - dist.Normal(0.0, 2**0.5).log_prob(X)).abs().max() < 1e-5


OTHERS = {
    "a sum along the plate": lambda z, x: z.cumsum(-1),
    "a mean over the draws": lambda z, x: z - z.mean(-1, keepdim=True),
    "the data's mean": lambda z, x: z + x.mean(),
    "the data's spread": lambda z, x: z + x / x.std(),
}


@pytest.mark.filterwarnings("ignore:std")
@pytest.mark.parametrize("name", OTHERS)
def test_a_density_that_depends_on_other_data_is_refused(name):
    with pytest.raises(ValueError, match="factorise over the data"):
        pv.log_weights(model_of(None, lambda i: 1.0, OTHERS[name]), guide, X, num_samples=2)


def test_a_guide_may_look_at_other_data():
    def own(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2 + 0.1 * x.mean(), 1.0))

    weights = pv.log_weights(model_of(None, lambda i: 1.0), own, X, num_samples=4000)
    found = weights.logsumexp(0) - torch.tensor(4000.0).log()
    assert (found - dist.Normal(0.0, 2**0.5).log_prob(X)).abs().max() < 0.1
