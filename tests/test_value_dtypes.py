"""One density of one number, whatever dtype the data have."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.stats import nbinom

import pyrovae as pv


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.float32, torch.float64])
@pytest.mark.parametrize("width", [torch.float32, torch.float64])
def test_counts_of_any_dtype_have_one_density(dtype, width):
    """torch's lgamma of whole numbers is float32's, off by a nat at a million, whatever the law's dtype."""
    n = torch.tensor([3.0, 1e3, 2e5, 3e6][: 3 if width == torch.float32 else 4], dtype=width)
    a, b = torch.tensor(2.0, dtype=width), torch.tensor(1e-6, dtype=width)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(a, b))
            pyro.sample("x", dist.Poisson(z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Gamma(a + x.to(width), 1 + b))

    right = torch.tensor(nbinom.logpmf(n.double().numpy(), 2, 1e-6 / (1 + 1e-6)))
    ev = pv.evidence(model, guide, n.to(dtype), estimators=[pv.IS(100), pv.Exact()], progress=False)
    torch.testing.assert_close(ev["Exact"].per_datum, right, rtol=0, atol=2e-5)
    if width == torch.float64:
        torch.testing.assert_close(ev["IS"].per_datum, right, rtol=0, atol=1e-5)
    low, high = ev["IS"].interval().unbind(-1)
    assert (low.isnan() | ((low - 1e-5 <= right) & (right <= high + 1e-5))).all()


@pytest.mark.parametrize(("dtype", "most"), [(torch.uint8, 255), (torch.int8, 127)])
def test_the_largest_number_of_a_dtype_has_a_density(dtype, most):
    def model(x):
        with pyro.plate("data", len(x)):
            p = pyro.sample("p", dist.Beta(torch.tensor(1.0), 1.0))
            pyro.sample("x", dist.Binomial(most, p), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("p", dist.Beta(1.0 + x.float(), 1.0 + most - x.float()))

    x = torch.tensor([0, 5, most], dtype=dtype)
    lw = pv.log_weights(model, guide, x, num_samples=3)
    torch.testing.assert_close(lw, torch.full((3, 3), -math.log(most + 1.0)).to(lw), rtol=0, atol=2e-4)
