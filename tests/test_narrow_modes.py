"""Modes of 1e-1 to 1e-5 of the prior's width are found, wherever they are and whatever the draws."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv

F64 = torch.float64
WIDTHS = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5]
zero = torch.zeros((), dtype=F64)


def t(value):
    return torch.tensor(value, dtype=F64)


def programs(likelihood, guide, dim=1):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(dim, dtype=F64), 1.0).to_event(1))
            pyro.sample("x", likelihood(z), obs=x)

    def q(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(*guide).expand([len(x), dim]).to_event(1))

    return model, q


def around(roots, width, terms):
    """ln of the sum of integrals over 40 widths around each root `[R, N]`, by the trapezoidal rule."""
    z = roots + width * torch.linspace(-40, 40, 16001, dtype=F64)[:, None, None]
    return (terms(z).logsumexp(0) + (width * 80 / 16000).log()).logsumexp(0)


def right(pair, x, truth, seed):
    e = pv.evidence(*pair, x, estimators=[pv.Exact()], seed=seed)["Exact"]
    error = e.details["numerical_error"]
    assert ((e.per_datum - truth).abs() <= error + 1e-9).all(), (e.per_datum - truth, error)
    assert (error < 1e-5).all()


GUIDES = {"the prior": (zero, 1.0), "far off": (zero + 7.0, 0.1)}


@pytest.mark.parametrize("guide", GUIDES.values(), ids=GUIDES)
@pytest.mark.parametrize("width", WIDTHS)
def test_one_mode(width, guide):
    x = t([0.0, 0.3, -3.0, 6.0])
    truth = dist.Normal(zero, math.hypot(1.0, width)).log_prob(x)
    for seed in range(2):
        right(programs(lambda z: dist.Normal(z[..., 0], width), guide), x, truth, seed)


@pytest.mark.parametrize("width", WIDTHS)
def test_many_modes(width):
    """x ~ N(sin 3z, w): a mode of width w / (3 |cos 3z|) at each root, some in the tail of the prior."""
    x = t([0.1, -0.7, 0.9])
    turns = 2 * math.pi * torch.arange(-4, 5, dtype=F64)[:, None]
    roots = torch.cat([x.asin() + turns, math.pi - x.asin() + turns]) / 3

    def terms(z):
        return dist.Normal(zero, 1.0).log_prob(z) + dist.Normal(torch.sin(3 * z), width).log_prob(x)

    if width >= 1e-2:  # they overlap
        z = torch.linspace(-9, 9, 200001, dtype=F64)[:, None]
        truth = terms(z).logsumexp(0) + math.log(18 / 200000)
    else:
        truth = around(roots, width / (3 * (3 * roots).cos().abs()), terms)
    for seed in range(2):
        right(programs(lambda z: dist.Normal(torch.sin(3 * z[..., 0]), width), (zero, 1.0)), x, truth, seed)


@pytest.mark.parametrize("width", WIDTHS)
def test_long_tails_of_the_likelihood_lead_to_its_peak(width):
    """Ten values of a Student's t around z: missed, it is 10 ln(1 / width) nats, and the integrand is no parabola."""
    x = 0.8 + width * t([[0.1, -0.7, 0.9, 0.4, -0.2, 1.3, -0.8, 0.0, 0.5, -1.1]])

    def likelihood(z):
        return dist.StudentT(t(3.0), z.expand(*z.shape[:-1], 10), t(width)).to_event(1)

    z = 0.8 + width * torch.linspace(-60, 60, 60001, dtype=F64)
    terms = dist.Normal(zero, 1.0).log_prob(z) + likelihood(z[:, None]).log_prob(x)
    truth = terms.logsumexp(0, keepdim=True) + math.log(width * 120 / 60000)
    for seed in range(2):
        right(programs(likelihood, (zero - 3.0, 0.5)), x, truth, seed)


@pytest.mark.parametrize("width", WIDTHS)
def test_modes_of_a_plane(width):
    """x ~ N((z_1^2, z_2), w): two modes."""
    x = t([[0.5, 0.3], [2.0, -2.0]])
    roots = torch.stack([x[:, 0].sqrt(), -x[:, 0].sqrt()])

    def terms(z):
        return dist.Normal(zero, 1.0).log_prob(z) + dist.Normal(z.square(), width).log_prob(x[:, 0])

    if width > 1e-2:
        z = torch.linspace(-9, 9, 200001, dtype=F64)[:, None]
        truth = terms(z).logsumexp(0) + math.log(18 / 200000)
    else:
        truth = around(roots, width / (2 * roots.abs()), terms)
    truth = truth + dist.Normal(zero, math.hypot(1.0, width)).log_prob(x[:, 1])

    def likelihood(z):
        return dist.Normal(torch.stack([z[..., 0].square(), z[..., 1]], -1), width).to_event(1)

    for seed in range(1):
        right(programs(likelihood, (zero + 0.5, 0.5), 2), x, truth, seed)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_ridge_of_a_plane(width):
    """x ~ N(z_1 + z_2, w): narrow in one direction, which is no axis."""
    x = t([0.0, 2.0, -5.0])
    truth = dist.Normal(zero, math.sqrt(2 + width**2)).log_prob(x)
    right(programs(lambda z: dist.Normal(z.sum(-1), width), (zero, 1.0), 2), x, truth, 0)
