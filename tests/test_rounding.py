"""Rounding as an error: measured, counted in errors and certificates; diagnostics that a constant does not move."""

import functools
import math

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import integrate, special, stats
from torch import nn

import pyrovae as pv
from pyrovae.evidence.weights.diagnostics import effective_sample_size, pareto_khat, smoothed_log_weights
from pyrovae.programs import inspect_program
from pyrovae.programs.particles.rounding import InFloat64, rounding

F64 = torch.float64


def linear_pair(dtype, low=0, high=255, num_dims=784, num_data=12, unit=1.0):
    """Columns of whole numbers under z ~ N(0, I_2), x ~ N(Wz + low, I), the guide exact; ln p(x) by NumPy.

    Data and likelihood are in parts of `unit`; the exact value is of x in whole numbers.
    """
    rng = np.random.default_rng(0)
    x = rng.integers(low, high, (num_data, num_dims)).astype(np.float32)
    w = rng.normal(size=(num_dims, 2)).astype(np.float32)
    w64, d = w.astype(float), x.astype(float) - low
    covariance = w64 @ w64.T + np.eye(num_dims)
    quadratic = (d * np.linalg.solve(covariance, d.T).T).sum(1)
    exact = -0.5 * (quadratic + np.linalg.slogdet(covariance)[1] + num_dims * math.log(2 * math.pi))
    inverse = np.linalg.inv(np.eye(2) + w64.T @ w64)
    weight, gain, scale = (
        torch.tensor(v, dtype=dtype) for v in (w, inverse @ w64.T, np.linalg.cholesky(inverse))
    )

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=dtype), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(unit * (z @ weight.T + low), unit).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.MultivariateNormal((x / unit - low) @ gain.T, scale_tril=scale))

    return model, guide, torch.tensor(x * unit, dtype=dtype), torch.tensor(exact)


@pytest.mark.parametrize(("low", "high"), [(0, 255), (50_000, 1_000_000)])
def test_a_certificate_allows_for_rounding(low, high):
    """784 columns: float32 errs by a third of a nat (and by 7e6), which the Monte-Carlo error does not see."""
    model, guide, x, exact = linear_pair(torch.float32, low, high)
    ev = pv.evidence(model, guide, x, estimators=[pv.ELBO(), pv.IS(200), pv.AIS(3)])
    true = float(exact.mean())
    assert abs(ev["IS"].log_evidence - true) > 0.1
    for name in ("IS", "AIS"):
        assert ev[name].certificate <= true
        assert abs(ev[name].log_evidence - true) <= 4 * ev[name].se_mc
        assert ev[name].rounding < 30 * abs(ev[name].log_evidence - true)  # of its size, no blanket bound
    assert any("rounding errs" in w and "float64" in w for w in ev.warnings)


def test_no_decimals_that_are_rounding():
    model, guide, x, _ = linear_pair(torch.float32)
    ev = pv.evidence(model, guide, x, estimators=[pv.IS(200)])
    assert 0.1 < ev["IS"].rounding < 1
    assert f"≥ {ev['IS'].log_evidence:.1f} " in ev.table()


def test_float64_has_no_such_error():
    model, guide, x, exact = linear_pair(F64)
    ev = pv.evidence(model, guide, x, estimators=[pv.IS(200)])
    torch.testing.assert_close(ev["IS"].per_datum, exact, rtol=1e-12, atol=1e-7)
    assert ev["IS"].rounding < 1e-7 and not any("rounding" in w for w in ev.warnings)


def test_units_do_not_change_the_evidence():
    """ln p of c x is ln p of x less D ln c: to the errors stated, in float32."""
    model, guide, x, exact = linear_pair(torch.float32, num_dims=40, high=6)
    one = pv.evidence(model, guide, x, estimators=[pv.IS(500)])["IS"]
    model, guide, x, _ = linear_pair(torch.float32, num_dims=40, high=6, unit=1e4)
    two = pv.evidence(model, guide, x, estimators=[pv.IS(500)])["IS"]
    for e, shift in ((one, 0.0), (two, 40 * math.log(1e4))):
        assert abs(e.log_evidence + shift - float(exact.mean())) <= 4 * e.se_mc
        assert e.se_mc < 1e-3


def test_every_operation_runs_in_float64():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x = torch.randn(5, 3)
    with torch.no_grad(), InFloat64():
        y = net(x)
        z = torch.zeros(2)
        z += y[0]  # a write into a narrow tensor rounds
        w = y.float()
        total = torch.tensor([1, 2]) + torch.ones(2)
    assert y.dtype == w.dtype == total.dtype == F64 and z.dtype == torch.float32
    torch.testing.assert_close(y, net.double()(x.double()), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(z, y[0].float())


def test_a_program_without_float64_gets_a_bound():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            if (z + 0.0).dtype != torch.float32:
                raise TypeError("float32 only")
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.8))

    x = torch.randn(7)
    found = rounding(inspect_program(model, guide, x), torch.arange(7))
    for error in (found.of_draws, found.of_mean):
        assert error.shape == (7,) and bool((error > 0).all()) and bool((error < 1e-5).all())


@pytest.mark.parametrize("pixels", [1, 10])
def test_rounding_of_draws_without_weight_is_the_elbos_alone(pixels):
    """torch cuts probabilities off at eps: ln p(x|z) of draws that weigh e^-16 and less is off by 20 nats a pixel."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            p = torch.sigmoid(40 * z).unsqueeze(-1).expand(*z.shape, pixels)
            pyro.sample("x", dist.Bernoulli(p).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.6 * (2 * x[..., 0] - 1), 0.8))

    x = torch.tensor([[1.0] * pixels, [0.0] * pixels] * 50)
    ev = pv.evidence(model, guide, x, estimators=[pv.ELBO(1000), pv.IS(1000), pv.Jackknife(1000)])
    exact = integrate.quad(
        lambda z: stats.norm.pdf(z) * special.expit(40 * z) ** pixels, -0.5, 9, points=[0, 0.1]
    )[0]
    for name in ("IS", "Jackknife"):
        e = ev[name]
        low, high = e.mean_interval()
        assert e.rounding < 1e-3 and e.se_mc < 0.01 and high - low < 0.1
        assert abs(e.log_evidence - math.log(exact)) < 4 * e.se_mc + 1e-3
    # A mean of log-weights counts all draws alike.
    assert ev["ELBO"].rounding > pixels
    assert any("rounding errs" in w and "in ELBO" in w for w in ev.warnings)


def test_rounding_of_a_weighty_draw_is_found_among_many_without_weight():
    """Of draws of this guide one in 12 has any weight, and its density is off by 1e7 x eps; four of them are run."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            far = 1e7 * (z > 1.4).float()
            pyro.sample("x", dist.Delta(x, log_density=(far + 0.3 * z) - far - 60 * (z < 1.4)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros_like(x), 1.0))

    found = rounding(inspect_program(model, guide, torch.zeros(200)), torch.arange(200))
    met = found.of_draws > 0.05
    assert 10 < int(met.sum()) < 150 and torch.equal(found.of_mean[met], found.of_draws[met])


@pytest.mark.parametrize("shift", [1.0, 1.5e7, -1e8])
def test_diagnostics_do_not_depend_on_a_constant(shift):
    """ESS 9 of 200 was "all weights equal" where ln p(x) is 1.5e7."""
    generator = torch.Generator().manual_seed(0)
    lw = torch.randn(200, 6, generator=generator, dtype=F64) * torch.tensor(
        [0.001, 0.1, 0.5, 1.0, 2.0, 4.0], dtype=F64
    )
    khat, moved = pareto_khat(lw), pareto_khat(lw + shift)
    assert khat[0] == -math.inf and torch.isfinite(khat[1:]).all()
    torch.testing.assert_close(moved, khat, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        effective_sample_size(lw + shift), effective_sample_size(lw), rtol=1e-6, atol=1e-6
    )
    a, b = smoothed_log_weights(lw)[0].softmax(0), smoothed_log_weights(lw + shift)[0].softmax(0)
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-9)
    for e in (pv.IS(200), pv.Jackknife(200)):
        one, two = e.estimate(lw), e.estimate(lw + shift)
        for name in ("variance", "bias"):
            torch.testing.assert_close(
                getattr(one, name), getattr(two, name), rtol=1e-4, atol=1e-5, equal_nan=True
            )
        torch.testing.assert_close(two.log_evidence - shift, one.log_evidence, rtol=0, atol=1e-5)


# Draws at the end of the numbers ---------------------------------------------------------------


def beta_binomial(shape, dtype=torch.float32):
    """z ~ Beta(.1, .2), five of five: the guide's mass near 1 is nearer than float32 can say."""
    number = functools.partial(torch.tensor, dtype=dtype)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Beta(number(0.1), number(0.2)))
            pyro.sample("x", dist.Binomial(5, z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Beta(number(5.0), number(shape)))

    return model, guide, torch.full((200,), 5.0, dtype=dtype)


def test_draws_that_are_put_at_the_last_number_before_an_edge_count_as_rounding():
    """Beta(5, .1) has a fifth of its mass there, and its weights at that number are too large: certified too high."""
    a, b = torch.tensor(0.1, dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64)
    exact = float((a + 5).lgamma() + (a + b).lgamma() - (a + b + 5).lgamma() - a.lgamma())
    model, guide, x = beta_binomial(0.1)
    ev = pv.evidence(model, guide, x, estimators=[pv.IS(500)])
    assert float(ev["IS"].per_datum.mean()) > exact + 0.03
    assert ev["IS"].certificate < exact
    assert any("float64" in w for w in ev.warnings)
    model, guide, x = beta_binomial(0.1, torch.float64)
    ev = pv.evidence(model, guide, x, estimators=[pv.IS(500)])
    assert float(ev["IS"].per_datum.mean()) == pytest.approx(exact, abs=0.01)


def test_a_law_without_such_draws_pays_nothing():
    model, guide, x = beta_binomial(2.0)
    assert pv.evidence(model, guide, x, estimators=[pv.IS(500)])["IS"].rounding < 1e-4
