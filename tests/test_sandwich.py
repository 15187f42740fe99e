"""Bounds on both sides of ln p(x) on simulated data, against exact evidence; what maps back to x."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.models.linear_gaussian import LinearGaussian
from pyrovae.programs.generate.simulated import simulate_pairs

from . import handwritten as hw

F64 = torch.float64


def f(value):
    return torch.tensor(value, dtype=F64)


def linear():
    torch.manual_seed(1)
    m = LinearGaussian((torch.randn(5, 2) * 1.3).double(), noise=0.3)

    def wide(x):
        q = m.posterior(x)
        with pyro.plate("data", len(x)):
            covariance = 3.0 * q.covariance_matrix
            pyro.sample("z", dist.MultivariateNormal(q.loc + 0.4, covariance_matrix=covariance))

    return m, wide


def nested(x):
    """z2 lives in (0, z1) and is exponential; x geometric."""
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", dist.Gamma(f(2.0), f(0.7)))
        z2 = pyro.sample("z2", dist.Uniform(f(0.0), z1))
        pyro.sample("x", dist.Poisson(z2), obs=x)


def nested_guide(x):
    with pyro.plate("data", len(x)):
        z1 = pyro.sample("z1", dist.Gamma(2.0 + 0.5 * x, f(0.6)))
        pyro.sample("z2", dist.Uniform(f(0.0), z1))


def within(lower, exact, upper):
    """Lower <= exact <= upper in the mean, within 4 standard errors of the paired differences."""
    for gap in (exact - lower, upper - exact):
        assert torch.isfinite(gap).all()
        assert gap.mean() > -4 * gap.std() / math.sqrt(len(gap))


@pytest.mark.parametrize("start", ["guide", "prior"])
def test_bounds_enclose_the_exact_evidence_and_close(start):
    m, wide = linear()
    sw = pv.sandwich(
        m.model,
        wide,
        torch.zeros(1, 5, dtype=F64),
        simulate=150,
        ais=pv.AIS(num_chains=4, start=start, leapfrog=3),
        temperatures=(30, 3),
        num_samples=50,
    )
    exact = m.log_evidence(sw.x).detach()
    assert len(sw.x) == 150 and [b.effort for b in sw.brackets] == [3, 30]
    for b in (*sw.brackets, sw.importance):
        within(b.lower, exact, b.upper)
    coarse, fine = (b.gap for b in sw.brackets)
    closed = coarse - fine
    assert closed.mean() > 4 * closed.std() / math.sqrt(150)
    assert fine.mean() < 0.5 * coarse.mean()
    assert sw.mean_gap == (pytest.approx(fine.mean().item()), pytest.approx((fine.std() / 150**0.5).item()))
    assert list(sw.curve) == [3, 30] and set(sw.curve[3]) == {"lower", "upper", "gap"}
    assert torch.equal(sw.gap, sw.upper - sw.lower) and (sw.acceptance > 0.5).all()


def test_support_that_hangs_on_another_latent():
    sw = pv.sandwich(
        nested,
        nested_guide,
        torch.zeros(1, dtype=F64),
        simulate=150,
        ais=pv.AIS(12, 8, "guide", 4),
        num_samples=50,
    )
    exact = math.log(0.7) - (sw.x + 1) * math.log(1.7)
    within(sw.lower, exact, sw.upper)
    within(sw.importance.lower, exact, sw.importance.upper)
    assert sw.mean_gap[0] < 0.5


def test_an_exact_guide_leaves_no_gap():
    m, _ = linear()
    sw = pv.sandwich(
        m.model,
        m.guide,
        torch.zeros(1, 5, dtype=F64),
        simulate=7,
        ais=pv.AIS(4, 2, leapfrog=2),
        num_samples=3,
    )
    exact = m.log_evidence(sw.x).detach()
    for bound in (sw.lower, sw.upper, sw.importance.lower, sw.importance.upper):
        torch.testing.assert_close(bound, exact, rtol=1e-10, atol=1e-10)


def test_table_and_warnings():
    m, wide = linear()
    options = {"simulate": 20, "ais": pv.AIS(2, 2, "prior", leapfrog=1), "num_samples": 10, "seed": 3}
    sw = pv.sandwich(m.model, wide, torch.zeros(1, 5, dtype=F64), **options)
    assert "simulated" in sw.table() and "gap" in sw.table("markdown")
    assert sum(line.startswith("| AIS") for line in sw.table("markdown").splitlines()) == 1
    assert sw.warnings[0].endswith("none on real data")
    assert any("more temperatures would narrow it" in w for w in sw.warnings)
    assert "≤ ln p(x) ≤" in repr(sw)
    with pytest.raises(ValueError, match="'terminal', 'markdown' or 'latex'"):
        sw.table("html")
    again = pv.sandwich(m.model, wide, torch.zeros(1, 5, dtype=F64), **options)
    assert torch.equal(again.lower, sw.lower) and torch.equal(again.upper, sw.upper)
    assert not torch.equal(pv.sandwich(m.model, wide, sw.x, **{**options, "seed": 4}).x, sw.x)


def test_x_comes_back_in_the_form_of_the_argument():
    """Images that the model flattens; contexts taken row by row."""
    case = hw.CASES["images"]()
    drawn = simulate_pairs(case.model, 7, case.args, seed=0)
    assert drawn.args[0].shape == (7, 1, 1, hw.D) and drawn.latents["z"].shape == (7, hw.L)
    case = hw.CASES["context"]()
    drawn = simulate_pairs(case.model, 7, case.args, seed=0)
    assert torch.equal(drawn.args[1], case.args[1][[0, 1, 2, 3, 4, 0, 1]]) and drawn.args[2] == case.args[2]
    sw = pv.sandwich(
        case.model, case.exact, *case.args, simulate=6, ais=pv.AIS(3, 2, leapfrog=1), num_samples=2
    )
    torch.testing.assert_close(sw.lower, sw.upper)


def test_simulated_pairs_are_joint_draws():
    m, _ = linear()
    drawn = simulate_pairs(m.model, 20_000, (torch.zeros(1, 5, dtype=F64),), seed=0)
    residual = drawn.args[0] - drawn.latents["z"] @ m.weight.detach().T - m.bias.detach()
    assert residual.var(0).sub(0.3).abs().max() < 4.5 * 0.3 * math.sqrt(2 / 20_000)
    assert drawn.latents["z"].mean(0).abs().max() < 4 / math.sqrt(20_000)


def test_declared_simulate():
    """A model that rescales its argument says itself how to draw."""

    def body(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(f(0.0), f(1.0)))
            pyro.sample("y", dist.Normal(z, f(1.0)), obs=x / 10)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 20, f(0.9)))

    def draw(num_data):
        z = torch.randn(num_data, dtype=F64)
        return 10 * (z + torch.randn(num_data, dtype=F64)), z

    options = {"simulate": 40, "ais": pv.AIS(10, 4, leapfrog=2), "num_samples": 20}
    with pytest.raises(ValueError, match="changes its argument before it observes it"):
        pv.sandwich(body, guide, torch.zeros(1, dtype=F64), **options)
    model = pv.program(simulate=draw)(lambda x: body(x))
    sw = pv.sandwich(model, guide, **options)
    exact = dist.Normal(f(0.0), f(2.0).sqrt()).log_prob(sw.x / 10)
    within(sw.lower, exact, sw.upper)
    assert sw.latents["z"].shape == (40,) and sw.x.std() > 5


def two_observed(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(f(0.0), f(1.0)))
        pyro.sample("a", dist.Normal(z, f(1.0)), obs=x)
        pyro.sample("b", dist.Normal(z, f(1.0)), obs=-x)


def factored(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(f(0.0), f(1.0)))
        pyro.factor("loss", -z.square())
        pyro.sample("a", dist.Normal(z, f(1.0)), obs=x)


def discrete(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Poisson(f(1.0)))
        pyro.sample("a", dist.Normal(z, f(1.0)), obs=x)


def plain_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, f(1.0)))


def discrete_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Poisson(f(1.0)))


@pytest.mark.parametrize(
    ("model", "guide", "options", "message"),
    [
        (two_observed, plain_guide, {}, "one observed site"),
        (pv.program(observed="a")(lambda x: two_observed(x)), plain_guide, {}, "one observed site"),
        (factored, plain_guide, {}, "observed site|pyro.factor"),
        (discrete, discrete_guide, {}, "discrete"),
        (nested, nested_guide, {"simulate": 0}, "simulate"),
        (nested, nested_guide, {"num_samples": 0}, "num_samples"),
        (nested, nested_guide, {"temperatures": (1, 5)}, "num_temperatures"),
        (
            nested,
            nested_guide,
            {"temperatures": (5,), "ais": pv.AIS(3, schedule=(0, 0.5, 1))},
            "fixed schedule",
        ),
    ],
)
def test_refusals(model, guide, options, message):
    with pytest.raises(ValueError, match=message):
        pv.sandwich(model, guide, torch.zeros(1, dtype=F64), **{"simulate": 3, **options})


def test_an_example_is_needed():
    with pytest.raises(ValueError, match="example batch"):
        pv.sandwich(nested, nested_guide)
    case = hw.CASES["fixed plate"]()
    with pytest.raises(ValueError, match="expected"):
        pv.sandwich(case.model, case.wrong, *case.args, simulate=10)


def test_a_difference_smaller_than_the_sandwich_is_wide_is_said_to_be_so():
    m, wide = linear()
    x = m.posterior(torch.zeros(1, 5, dtype=F64)).loc.new_zeros(20, 5)
    sw = pv.sandwich(m.model, wide, x[:1], simulate=40, ais=pv.AIS(3, 4, "prior"), num_samples=4, seed=3)
    assert sw.gaps.keys() == {"AIS (prior)", "IS"} and sw.gaps["IS"] == sw.importance.means()["gap"][0]
    few, many = (pv.evidence(m.model, wide, x, estimators=[pv.IS(k)], seed=1) for k in (4, 500))
    marked = few.with_sandwich(sw)
    assert "BDMC gap" in marked.table() and "BDMC gap" not in few.table()
    claim = many.compare(marked)
    assert claim.sandwich_gap == sw.gaps["IS"] > abs(claim.difference) > 0
    assert "wider than the difference" in claim.warnings[0]
    assert claim.warnings[0] in many.table("markdown", against=marked)
    assert many.compare(few).warnings == []  # nothing is known
    assert many.compare(few.with_sandwich({"IS": abs(claim.difference) / 2})).warnings == []
    with pytest.raises(ValueError, match="expected gaps for some of"):
        few.with_sandwich({"AIS": 0.1})


def test_exact_against_exact_has_a_direction():
    m, wide = linear()
    x = torch.zeros(3, 5, dtype=F64)
    exact, bound = (pv.evidence(m.model, wide, x, estimators=[e]) for e in (pv.Exact(), pv.IS(50)))
    assert exact.compare(exact).directed and not exact.compare(bound).directed


def test_latents_that_are_summed_out_leave_the_random_state_alone():
    case = hw.CASES["enumerated in the model"]()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    quick = {"ais": pv.AIS(3, 2, leapfrog=1), "num_samples": 4}
    pv.sandwich(case.model, case.wrong, *case.args, simulate=3, **quick, progress=False)
    assert torch.equal(torch.get_rng_state(), before)
