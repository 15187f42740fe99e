"""Sequential Monte Carlo: resampling by hand, unbiasedness, and what it is for."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evidence.chains.hmc import Point
from pyrovae.evidence.chains.resampling import resample_islands
from pyrovae.programs import seeded

F64 = torch.float64


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 0.3), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.3 * x, 1.0))


def point(k, n):
    u = torch.arange(k * n, dtype=F64).reshape(k, n)
    return Point(u.unsqueeze(-1), u, u + 0.5, -u.unsqueeze(-1), 2 * u.unsqueeze(-1))


def test_resampling_keeps_means_and_states_together():
    """Each chain of an uneven island comes down(K w) or up(K w) times; all parts of a state go along."""
    random = torch.Generator().manual_seed(0)
    lw = 3 * torch.randn(20, 5, generator=random, dtype=F64)
    start = point(20, 5)
    with seeded(0, "test"):
        after, total = resample_islands(start, lw, 4)
    islands = lw.reshape(4, 5, 5)
    share = islands.softmax(1)
    uneven = 1 / share.square().sum(1) < 2.5
    assert uneven.any() and not uneven.all()
    mean = torch.logsumexp(islands, 1)
    torch.testing.assert_close(torch.logsumexp(total.reshape(4, 5, 5), 1), mean, rtol=1e-12, atol=1e-12)
    u = after.u.squeeze(-1)
    for name, shift in (("base", 0.0), ("slope", 0.5)):
        assert torch.equal(getattr(after, name), u + shift)
    assert torch.equal(after.base_grad.squeeze(-1), -u) and torch.equal(after.slope_grad.squeeze(-1), 2 * u)
    for r in range(4):
        for n in range(5):
            own = start.u[5 * r : 5 * r + 5, n, 0]
            count = torch.stack([(u[5 * r : 5 * r + 5, n] == v).sum() for v in own]).double()
            wanted = 5 * share[r, :, n] if uneven[r, n] else torch.ones(5, dtype=F64)
            assert ((count - wanted).abs() < 1 + 1e-9).all() and int(count.sum()) == 5


def test_an_island_without_weight_stays():
    lw = torch.full((6, 2), -torch.inf, dtype=F64)
    lw[3:, 0] = torch.tensor([0.0, -50.0, torch.nan], dtype=F64)
    with seeded(0, "test"):
        after, total = resample_islands(point(6, 2), lw, 2)
    assert torch.equal(after.u[:3], point(6, 2).u[:3]) and torch.equal(after.u[:, 1], point(6, 2).u[:, 1])
    assert bool((after.u[3:, 0] == point(6, 2).u[3, 0]).all())
    torch.testing.assert_close(total[3:, 0], torch.full((3,), -math.log(3), dtype=F64))


@pytest.mark.parametrize("start", ["prior", "guide"])
def test_islands_are_unbiased_for_p(start):
    """A fast path, on which chains are resampled: the mean of Z / p over 2000 data of one x is 1 within 4 SE."""
    x = torch.full((2000,), 1.5, dtype=F64)
    truth = float(dist.Normal(0.0, math.sqrt(1.09)).log_prob(torch.tensor(1.5, dtype=F64)))
    e = pv.evidence(model, guide, x, estimators=[pv.SMC(6, 16, num_islands=2, start=start)], compile=False)
    (e,) = e.values()
    ratio = (e.per_datum - truth).exp()
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / math.sqrt(len(x))
    assert e.num_samples == 2 and e.name == ("SMC" if start == "guide" else "SMC (prior)")


def test_a_slow_path_is_ais():
    """Where nothing is resampled, islands hold the chains of AIS: the same mean weight."""
    x = torch.tensor([0.2, -0.4], dtype=F64)
    smc = pv.evidence(model, guide, x, estimators=[pv.SMC(40, 16, num_islands=4)], compile=False)["SMC"]
    ais = pv.evidence(model, guide, x, estimators=[pv.AIS(40, 16)], compile=False)["AIS"]
    torch.testing.assert_close(smc.per_datum, ais.per_datum, rtol=1e-12, atol=1e-12)


def test_a_funnel_holds_single_chains_up():
    """v ~ N(0, 3), z ~ N(0, e^{v/2}): at one cost, resampled chains lose less than single ones."""

    def funnel(x):
        with pyro.plate("data", len(x)):
            v = pyro.sample("v", dist.Normal(x.new_zeros(()), 3.0))
            z = pyro.sample(
                "z", dist.Normal(0.0, (v / 2).exp().unsqueeze(-1).expand(*v.shape, 9)).to_event(1)
            )
            pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=x)

    x = 3 * torch.randn(1, 9, generator=torch.Generator().manual_seed(0), dtype=F64).expand(40, 9)
    v = torch.linspace(-20, 20, 200_001, dtype=F64)
    marginal = (
        dist.Normal(0.0, (v.exp() + 0.25).sqrt().unsqueeze(-1)).expand([len(v), 9]).log_prob(x[:1]).sum(-1)
    )
    truth = torch.logsumexp(marginal + dist.Normal(0.0, 3.0).log_prob(v), 0) + math.log(float(v[1] - v[0]))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("v", dist.Normal(0 * x[:, 0], 3.0))
            pyro.sample("z", dist.Normal(0 * x, 1.0).to_event(1))

    kwargs = {"start": "prior", "leapfrog": 5}
    estimators = [pv.AIS(40, 32, **kwargs), pv.SMC(40, 32, num_islands=2, **kwargs)]
    ais, smc = pv.evidence(funnel, guide, x, estimators=estimators, compile=False).values()
    for e in (ais, smc):
        ratio = (e.per_datum - truth).exp()
        assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / math.sqrt(len(x))
    loss = (ais.per_datum - truth).square().mean(), (smc.per_datum - truth).square().mean()
    assert loss[1] < 0.5 * loss[0]


def test_bad_islands_are_refused():
    for islands in (1, 0, 2.0, True):
        with pytest.raises(ValueError, match="num_islands to be a whole number >= 2"):
            pv.SMC(num_islands=islands)
    with pytest.raises(ValueError, match="8 islands of one size, of two at least, got 100; try 104"):
        pv.SMC(num_chains=100)
    with pytest.raises(ValueError, match="got 8; try 16"):
        pv.SMC(num_chains=8)
    with pytest.raises(ValueError, match="num_temperatures"):
        pv.SMC(1)
