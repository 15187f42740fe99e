"""Importance sampling with a share of the prior's draws: unbiased, bounded, finds what the guide leaves out."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import pyrovae as pv

F64 = torch.float64
X = torch.tensor([0.3, 1.4, -2.0], dtype=F64)


def normal_pair(guide_law):
    """z ~ N(0, 1), x ~ N(z, 1/2): ln p(x) = ln N(x; 0, 5/4)."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=F64), 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", guide_law(x))

    return model, guide, dist.Normal(torch.zeros((), dtype=F64), math.sqrt(1.25)).log_prob(X)


def ratio_z(estimate, exact):
    """(E exp(estimate) / p - 1) in standard errors, per datum."""
    ratio = (estimate.per_datum - exact).exp()
    return (ratio - 1) / estimate.variance.sqrt()


@pytest.mark.parametrize(
    "law",
    [
        lambda x: dist.Uniform(x - 0.5, x + 0.5),  # narrower than the posterior
        lambda x: dist.Normal(x + 3.0, 0.3),  # elsewhere
        lambda x: dist.Exponential(torch.ones_like(x)),  # half of the support
    ],
)
def test_is_right_where_the_guide_leaves_mass_out(law):
    model, guide, exact = normal_pair(law)
    ev = pv.evidence(model, guide, X, estimators=[pv.IS(6_000), pv.IS(6_000, defensive=0.1)], seed=3)
    assert float((exact - ev["IS"].per_datum).max()) > 0.1  # by much more than its error
    mine = ev["IS (defensive)"]
    assert bool((ratio_z(mine, exact).abs() < 4).all())
    # w <= p(x|z) / b, so that weights have every moment.
    assert bool((mine.variance < 0.02).all())


def test_sums_out_what_the_model_enumerates():
    """c ~ Bernoulli(.3), z ~ N(4c - 2, 1), x ~ N(z, 1/2); the guide knows one of both modes."""

    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample(
                "c", dist.Bernoulli(torch.tensor(0.3, dtype=F64)), infer={"enumerate": "parallel"}
            )
            z = pyro.sample("z", dist.Normal(4 * c - 2, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.full_like(x, -2.0), 0.5))

    exact = torch.logsumexp(
        torch.stack(
            [math.log(p) + dist.Normal(m, math.sqrt(1.25)).log_prob(X) for p, m in ((0.3, 2.0), (0.7, -2.0))]
        ),
        0,
    )
    ev = pv.evidence(model, guide, X, estimators=[pv.IS(6_000, defensive=0.2)])
    assert bool((ratio_z(ev["IS (defensive)"], exact).abs() < 4).all())


def test_chunks_masks_and_loops_change_nothing_in_expectation():
    """A mask over the plate; a program that does not broadcast; small chunks; a resumed evaluation."""
    model, guide, exact = normal_pair(lambda x: dist.Normal(0.8 * x, 0.6))
    seen = torch.tensor([True, False, True])

    def masked(fn):
        def run(x, seen):
            with poutine.mask(mask=seen):
                fn(x)

        return run

    ev = pv.evidence(masked(model), masked(guide), X, seen, estimators=[pv.IS(4000, defensive=0.3)])
    found = ev["IS (defensive)"]
    assert float(found.per_datum[1]) == pytest.approx(0.0, abs=1e-12)
    assert bool((ratio_z(found, exact)[seen].abs() < 4).all())

    def looped(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), dtype=F64), 1.0))
            assert z.shape == x.shape
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    slow = pv.evidence(looped, guide, X, estimators=[pv.IS(400, defensive=0.3)])["IS (defensive)"]
    assert bool((ratio_z(slow, exact).abs() < 4).all())


def test_resumes_to_the_same_numbers(tmp_path):
    model, guide, _ = normal_pair(lambda x: dist.Normal(0.8 * x, 0.6))
    e = [pv.IS(500, defensive=0.1)]
    runs = [pv.evidence(model, guide, X, estimators=e, budget=2000, resume=tmp_path) for _ in range(2)]
    runs.append(pv.evidence(model, guide, X, estimators=e, budget=2000))
    for ev in runs[1:]:
        assert torch.equal(ev["IS (defensive)"].per_datum, runs[0]["IS (defensive)"].per_datum)


def test_refusals():
    with pytest.raises(ValueError, match="share"):
        pv.IS(100, defensive=1.0)
    model, guide, _ = normal_pair(lambda x: dist.Normal(x, 0.6))
    with pytest.raises(ValueError, match="larger num_samples"):
        pv.evidence(model, guide, X, estimators=[pv.IS(4, defensive=0.01)])

    def auxiliary(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x, 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Delta(a.tanh(), log_density=-(1 - a.tanh() ** 2).log()))

    with pytest.raises(ValueError, match="defensive"):
        pv.evidence(model, auxiliary, X, estimators=[pv.IS(100, defensive=0.1)])


def test_a_model_that_scales_its_data_in_place_sees_the_same_data_in_each_run():
    def model(x):
        x /= 2
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=F64), 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.4 * x, 0.6))

    x = torch.tensor([4.0, -5.0, 3.0], dtype=F64)
    exact = dist.Normal(torch.zeros((), dtype=F64), math.sqrt(1.25)).log_prob(x / 2)
    ev = pv.evidence(model, guide, x, estimators=[pv.IS(2_000, defensive=0.2)])
    assert bool((ratio_z(ev["IS (defensive)"], exact).abs() < 4).all())


def test_a_program_whose_latents_are_all_summed_out():
    def model(x):
        with pyro.plate("data", len(x)):
            c = pyro.sample(
                "c", dist.Bernoulli(torch.tensor(0.3, dtype=F64)), infer={"enumerate": "parallel"}
            )
            pyro.sample("x", dist.Normal(2 * c, 1.0), obs=x)

    def nothing(x):
        pass

    law = dist.Normal(torch.tensor([0.0, 2.0], dtype=F64), 1.0)
    exact = (law.log_prob(X[:, None]) + torch.tensor([0.7, 0.3], dtype=F64).log()).logsumexp(-1)
    ev = pv.evidence(model, nothing, X, estimators=[pv.IS(10, defensive=0.2)])
    torch.testing.assert_close(ev["IS (defensive)"].per_datum, exact)
