"""Laws whose parameters leave their bounds at draws of the guide: refused in words, not counted."""

import math
from typing import ClassVar

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import constraints

import pyrovae as pv

from .against_pyro import assert_ends_as_pyro

BITS = torch.tensor([0.0, 1.0]).repeat(20)
SHARES = 0.25 + 0.5 * BITS
RARELY = {
    "Bernoulli": (lambda z: dist.Bernoulli(0.5 + 0.1 * z), BITS),
    "Geometric": (lambda z: dist.Geometric(0.5 + 0.1 * z), BITS),
    "Binomial": (lambda z: dist.Binomial(3, 0.5 + 0.1 * z), BITS),
    "Poisson": (lambda z: dist.Poisson(4 + z), BITS),
    "Gamma": (lambda z: dist.Gamma(4 + z, 1.0), SHARES),
    "Beta": (lambda z: dist.Beta(4 + z, 2.0), SHARES),
    "NegativeBinomial": (lambda z: dist.NegativeBinomial(4 + z, 0.5 * torch.ones_like(z)), BITS),
    "StudentT": (lambda z: dist.StudentT(4 + z, 0.0, 1.0), BITS),
    "Categorical": (lambda z: dist.Categorical(torch.stack([0.5 + 0.1 * z, 0.5 - 0.1 * z], -1)), BITS),
    "Normal": (lambda z: dist.Normal(0.0, 4 + z), BITS),
    "shifted": (
        lambda z: dist.TransformedDistribution(
            dist.Gamma(4 + z, 1.0), dist.transforms.AffineTransform(-1.0, 1.0)
        ),
        SHARES,
    ),
    "mixture": (
        lambda z: dist.MixtureSameFamily(
            dist.Categorical(torch.ones(2)), dist.Gamma(torch.stack([4 + z, 5 + 0 * z], -1), 1.0)
        ),
        SHARES,
    ),
}


def pair(law):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", law(z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(-0.5, 1.2).expand([len(x)]))

    return model, guide


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("name", RARELY)
def test_a_law_that_is_none_at_some_draws_is_refused(name, compile):
    """Pyro's validation, which is off in an evaluation, would raise; torch's formulas give numbers."""
    law, x = RARELY[name]
    with pytest.raises(ValueError, match=r"parameters within their bounds, got others .* of 'x'"):
        pv.log_weights(*pair(law), x, num_samples=5000, compile=compile)


class Mixed(dist.TorchDistribution):
    """Normal laws at `locs`, and a latent, with equal weights: parameters without a dim for the data."""

    arg_constraints: ClassVar = {"scales": constraints.positive, "locs": constraints.real}
    support = constraints.real

    def __init__(self, z, scales, locs):
        self.z, self.scales, self.locs = z, scales, locs
        super().__init__(batch_shape=z.shape)

    def log_prob(self, value):
        value = (value - self.z)[..., None]
        return dist.Normal(self.locs, self.scales).log_prob(value).logsumexp(-1) - math.log(5)


def test_what_is_served():
    """Rounding, masked elements, and laws that the program made without validation."""
    served = {
        "rounding": (lambda z: dist.Bernoulli(torch.where(z > 3, 1 + 1e-6, z.sigmoid())), BITS),
        "a shape of its own": (
            lambda z: Mixed(z, torch.ones(5), torch.linspace(-1.0, 1.0, 5)),
            SHARES,
        ),
        "masked": (lambda z: dist.Gamma(4 + z, 1.0).mask(z > -4), SHARES),
        "unchecked": (lambda z: dist.Gamma(4 + z, 1.0, validate_args=False), SHARES),
        "unchecked, expanded": (
            lambda z: dist.Gamma(4 + z, 1.0, validate_args=False).expand(z.shape),
            SHARES,
        ),
    }
    for name, (law, x) in served.items():
        weights = pv.log_weights(*pair(law), x, num_samples=5000, seed=0)
        assert not weights.isnan().any(), name


@pytest.mark.parametrize("name", ["Gamma", "Bernoulli", "Categorical", "mixture"])
def test_a_compiled_step_refuses_where_pyro_does(name):
    """A guide that drifts to where the likelihood is no law ends in Pyro's error, at Pyro's step."""
    law, x = RARELY[name]
    sign = -1 if name in ("Gamma", "mixture") else 1

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(sign * 9.0, 0.5))
            pyro.sample("x", law(z), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 0.05).expand([len(x)]))

    assert_ends_as_pyro(model, guide, x, "to satisfy the constraint")
