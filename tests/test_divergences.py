"""KL and Jensen–Shannon against closed forms, quadrature and their bounds."""

import math

import pyro.distributions as pdist
import pytest
import torch
from torch import distributions as dist

import pyrovae as pv
from pyrovae.data import IsingTorus

F64 = torch.float64


def tensor(*values):
    return torch.tensor(values, dtype=F64)


def mixture():
    return dist.MixtureSameFamily(
        dist.Categorical(tensor(0.3, 0.7)), dist.Normal(tensor(-1.0, 2.0), tensor(0.5, 1.0))
    )


def integral(f):
    grid = torch.linspace(-30, 30, 200_001, dtype=F64)
    return float(torch.trapezoid(f(grid), grid))


def kl_by_quadrature(p, q):
    return integral(lambda x: p.log_prob(x).exp() * (p.log_prob(x) - q.log_prob(x)))


def js_by_quadrature(p, q):
    def half(a, b):
        log_m = lambda x: torch.logaddexp(a.log_prob(x), b.log_prob(x)) - math.log(2)  # noqa: E731
        return integral(lambda x: a.log_prob(x).exp() * (a.log_prob(x) - log_m(x)))

    return 0.5 * (half(p, q) + half(q, p))


def within(result, value, sigmas=4):
    assert result.method == "monte carlo"
    assert 0 < float(result.se) < 0.1
    assert abs(float(result) - value) < sigmas * float(result.se)


def test_registered_closed_form_is_taken():
    p, q = dist.Normal(tensor(0.0), tensor(1.0)), dist.Normal(tensor(1.0), tensor(2.0))
    result = pv.divergences.kl(p, q)
    assert result.method == "closed form"
    assert float(result) == pytest.approx(math.log(2) + (1 + 1) / 8 - 0.5, abs=1e-12)
    assert float(result.se) == 0
    within(pv.divergences.kl(p, q, exact=False), float(result))


@pytest.mark.parametrize("normal", [dist.Normal, pdist.Normal])
@pytest.mark.parametrize(
    "points", [lambda: pdist.Delta(tensor([1.0, 2.0])), lambda: dist.Poisson(tensor([1.0, 2.0]))]
)
def test_what_has_no_density_is_apart_from_what_has_one(points, normal):
    """Pyro registers -ln q at the point, for MAP guides."""
    law = normal(tensor(0.0), tensor(1.0))
    for pair in ((points(), law), (law, points())):
        assert pv.divergences.kl(*pair).value.flatten().tolist() == [math.inf] * 2
        assert pv.divergences.js(*pair).value.flatten().tolist() == pytest.approx([math.log(2)] * 2)
    poisson = pv.divergences.kl(pdist.Delta(tensor(1.0)), pdist.Poisson(tensor(2.0)))
    assert float(poisson) == pytest.approx(2 - math.log(2), abs=1e-6)


def test_closed_forms_of_the_library_are_taken():
    p = pdist.MultivariateNormal(torch.zeros(3, dtype=F64), torch.eye(3, dtype=F64) * 2)
    q = pdist.Normal(torch.zeros(3, dtype=F64), torch.ones(3, dtype=F64)).to_event(1)
    result = pv.divergences.kl(p, q)
    assert result.method == "closed form"
    assert float(result) == pytest.approx(1.5 * (2 - 1 - math.log(2)), abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_mixture_equals_quadrature(seed):
    p, q = mixture(), dist.Normal(tensor(0.5).squeeze(), tensor(2.0).squeeze())
    within(pv.divergences.kl(p, q, seed=seed), kl_by_quadrature(p, q))
    within(pv.divergences.kl(q, p, seed=seed), kl_by_quadrature(q, p))
    within(pv.divergences.js(p, q, seed=seed), js_by_quadrature(p, q))


def test_standard_error_is_the_spread_over_seeds():
    p, q = mixture(), dist.Normal(torch.tensor(0.5, dtype=F64), torch.tensor(2.0, dtype=F64))
    for divergence in (pv.divergences.kl, pv.divergences.js):
        runs = [divergence(p, q, 200, seed=s) for s in range(200)]
        spread = torch.stack([r.value for r in runs]).std()
        mean_se = torch.stack([r.se for r in runs]).mean()
        # the relative error of a standard deviation of 200 is about 1/sqrt(400)
        assert float(mean_se / spread) == pytest.approx(1, abs=4.5 / 400**0.5)


def test_js_is_symmetric_and_at_most_ln_2():
    p, q = mixture(), dist.Normal(torch.tensor(3.0, dtype=F64), torch.tensor(0.5, dtype=F64))
    there, back = pv.divergences.js(p, q), pv.divergences.js(q, p)
    assert abs(float(there) - float(back)) < 4 * math.hypot(float(there.se), float(back.se))
    for shift in (0.0, 1.0, 5.0, 100.0, 1e6):
        value = float(pv.divergences.js(p, dist.Normal(torch.tensor(shift, dtype=F64), 1.0), 500))
        assert value <= math.log(2)
    assert value == pytest.approx(math.log(2), abs=1e-12)
    assert float(pv.divergences.js(p, p)) == pytest.approx(0, abs=1e-12)


def test_disjoint_supports():
    p, q = dist.Uniform(tensor(0.0), tensor(1.0)), dist.Uniform(tensor(2.0), tensor(3.0))
    assert float(pv.divergences.kl(p, q)) == math.inf
    drawn = pv.divergences.kl(p, q, exact=False)
    assert float(drawn) == math.inf
    assert math.isnan(float(drawn.se))
    assert float(pv.divergences.js(p, q)) == pytest.approx(math.log(2), abs=1e-15)
    assert float(pv.divergences.js(p, q).se) == 0
    # torch would raise (validation) where a Gamma is asked for negative numbers
    half = pv.divergences.kl(
        dist.Normal(tensor(0.0), tensor(1.0)), dist.Gamma(tensor(2.0), tensor(1.0)), exact=False
    )
    assert float(half) == math.inf


def test_nested_supports_are_finite_in_one_direction():
    p, q = dist.Uniform(tensor(0.0), tensor(1.0)), dist.Uniform(tensor(0.0), tensor(2.0))
    assert float(pv.divergences.kl(p, q, exact=False)) == pytest.approx(math.log(2), abs=1e-12)
    assert float(pv.divergences.kl(q, p, exact=False)) == math.inf
    # m is 3/4 on [0, 1] and 1/4 on [1, 2]
    exact = 0.5 * math.log(4 / 3) + 0.25 * math.log(2 / 3) + 0.25 * math.log(2)
    within(pv.divergences.js(p, q), exact)


def test_finite_supports_are_enumerated():
    a, b = tensor(0.5, 0.5, 0.0), tensor(0.25, 0.25, 0.5)
    p, q = dist.Categorical(a), dist.Categorical(b)
    m = (a + b) / 2
    exact = 0.5 * float((a[:2] * (a / m)[:2].log()).sum() + (b * (b / m).log()).sum())
    assert pv.divergences.js(p, q).method == "enumeration"
    assert float(pv.divergences.js(p, q)) == pytest.approx(exact, abs=1e-7)
    assert float(pv.divergences.js(p, q)) == float(pv.divergences.js(q, p))
    within(pv.divergences.js(p, q, exact=False), exact)


def test_batches_and_broadcasting():
    p = dist.Normal(torch.zeros(4, dtype=F64), 1.0)
    q = dist.Normal(torch.arange(3, dtype=F64)[:, None], 1.0)
    result = pv.divergences.kl(p, q, exact=False)
    assert result.value.shape == result.se.shape == (3, 4)
    exact = pv.divergences.kl(p, q).value
    assert bool(((result.value - exact).abs() <= 4.5 * result.se).all())
    assert pv.divergences.js(p, q).value.shape == (3, 4)
    wide = dist.Independent(dist.Normal(torch.zeros(2, 5), 1.0), 1)
    assert pv.divergences.js(wide, wide).value.shape == (2,)


def test_draws_that_are_all_alike_leave_an_error():
    """Of 1,000 draws none is the other value: the estimate is off by .0007 and its spread is 0."""
    p, q = dist.Bernoulli(torch.tensor(1e-4).double()), dist.Bernoulli(torch.tensor(0.5).double())
    exact = pv.divergences.kl(p, q)
    found = pv.divergences.kl(p, q, num_samples=1000, exact=False, seed=1)
    off = abs(float(found) - float(exact))
    assert off > 5e-4 and float(found.se) > off / 3 and float(found.se) < 2e-3
    same = pv.divergences.kl(q, q, num_samples=1000, exact=False)
    assert float(same) == float(same.se) == 0


def test_laws_that_are_no_distribution():
    p, q = IsingTorus(3, 2.0), IsingTorus(3, 3.0)
    # <ln p - ln q> needs only the exact mean energy
    exact = p.energy * (1 / q.T - 1 / p.T) + q.log_partition - p.log_partition
    within(pv.divergences.kl(p, q), exact)
    assert 0 < float(pv.divergences.js(p, q)) < math.log(2)


def test_a_look_beyond_supports_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert math.isinf(pv.divergences.kl(dist.Normal(0.0, 1.0), dist.Gamma(2.0, 1.0), exact=False))
    assert torch.equal(torch.get_rng_state(), state)


def test_global_generator_is_left_alone_and_the_seed_counts():
    p, q = mixture(), dist.Normal(torch.tensor(0.0, dtype=F64), 1.0)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = pv.divergences.js(p, q, 50, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert float(pv.divergences.js(p, q, 50, seed=3)) == float(first)
    assert float(pv.divergences.js(p, q, 50, seed=4)) != float(first)
    assert "monte carlo" in repr(first)
    assert math.isnan(float(pv.divergences.kl(p, q, 1).se))


def test_bad_input():
    p = dist.Normal(torch.zeros(3), 1.0)
    with pytest.raises(TypeError, match="sample and log_prob"):
        pv.divergences.kl(p, torch.zeros(3))
    with pytest.raises(ValueError, match="one event shape"):
        pv.divergences.js(p, dist.Independent(p, 1))
    with pytest.raises(ValueError, match="num_samples >= 1"):
        pv.divergences.js(p, p, 0)
    nan = dist.Normal(torch.tensor(0.0), torch.tensor(1.0))
    nan.log_prob = lambda x: x * math.nan
    with pytest.raises(ValueError, match="NaN"):
        pv.divergences.kl(dist.Normal(torch.tensor(0.0), torch.tensor(2.0)), nan, exact=False)


@pytest.mark.parametrize(
    ("p", "q"),
    [
        (
            dist.HalfNormal(tensor(1.0).squeeze()),
            dist.Uniform(tensor(-3.0).squeeze(), tensor(4.0).squeeze()),
        ),  # one draw in 16,000 lies beyond
        (
            dist.Independent(dist.Laplace(torch.zeros(2, dtype=F64), 1.0), 1),
            dist.Independent(dist.Uniform(tensor(-40.0, -40.0), tensor(40.0, 40.0)), 1),
        ),
        (
            dist.Weibull(tensor(2.0).squeeze(), tensor(1.0).squeeze()),
            dist.Uniform(tensor(-1.0).squeeze(), tensor(9.0).squeeze()),
        ),
    ],
    ids=["half-normal", "independent", "weibull"],
)
def test_kl_is_infinite_where_p_reaches_beyond_q(p, q):
    """Though no draw of p need show it."""
    found = pv.divergences.kl(p, q, 2000, exact=False)
    assert found.value == math.inf and found.method == "supports and tails" and found.se.isnan()
    assert "q has none" in repr(found)
    assert 0 <= float(pv.divergences.js(p, q, 2000)) <= math.log(2)


def test_kl_beyond_q_batch_by_batch():
    """Uniform on (0, 1) and (0, 5), whose declared support is the whole line."""
    q = dist.Uniform(tensor(-3.0), tensor(4.0))
    for width, truth in ((1.0, math.log(7)), (5.0, math.inf)):
        p = dist.TransformedDistribution(
            dist.Uniform(tensor(0.0), tensor(1.0)), [dist.AffineTransform(0.0, width)]
        )
        found = pv.divergences.kl(p, q, 4000)
        assert found.value[0] == pytest.approx(truth, abs=1e-9)
    both = pv.divergences.kl(
        dist.HalfNormal(tensor(1.0, 0.1)), dist.Uniform(tensor(-3.0, -3.0), tensor(4.0, math.inf)), 1000
    )
    assert both.value[0] == math.inf


def test_kl_within_bounds_is_left_alone():
    for p, q, truth in [
        (
            dist.Uniform(tensor(0.0).squeeze(), tensor(1.0).squeeze()),
            dist.Beta(tensor(2.0).squeeze(), tensor(2.0).squeeze()),
            2 - math.log(6),
        ),
        (
            dist.VonMises(tensor(0.0).squeeze(), tensor(1.0).squeeze()),
            dist.Uniform(tensor(-4.0).squeeze(), tensor(4.0).squeeze()),
            math.log(4 / math.pi / 1.2660658777520082) + 0.5651591039924851 / 1.2660658777520082,
        ),
    ]:
        found = pv.divergences.kl(p, q, 20_000, exact=False)
        assert abs(float(found) - truth) < 5 * float(found.se) + 1e-3


def one(value):
    return torch.tensor(value, dtype=F64)


@pytest.mark.parametrize(
    ("p", "q", "endless"),
    [
        (dist.Cauchy(one(0.0), one(1.0)), pdist.Logistic(one(0.0), one(1.0)), True),
        (dist.StudentT(one(2.0)), dist.Normal(one(0.0), one(1.0)), True),
        (dist.StudentT(one(4.0)), dist.Normal(one(0.0), one(1.0)), False),
        (dist.Cauchy(one(0.0), one(1.0)), dist.StudentT(one(2.0)), False),
        (dist.Exponential(one(1.0)), dist.InverseGamma(one(1.0), one(1.0)), True),  # at 0, not far away
        (dist.Exponential(one(1.0)), dist.LogNormal(one(0.0), one(1.0)), False),
        (dist.Laplace(one(0.0), one(1.0)), pdist.Logistic(one(0.0), one(1.0)), False),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, dist.Distribution) else str(v),
)
@pytest.mark.filterwarnings("ignore")
def test_kl_is_infinite_where_ln_p_over_q_has_no_mean(p, q, endless):
    """E|x| of a Cauchy is infinite, and so is its KL to a logistic; every run gave some finite number."""
    value = pv.divergences.kl(p, q, 20_000, exact=False).value
    assert bool(value.isinf()) == endless
    assert 0 <= float(pv.divergences.js(p, q, 2000)) <= math.log(2)


def test_kl_of_vectors_with_tails_without_a_mean_is_refused():
    p = pdist.MultivariateStudentT(one(1.0), torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))
    q = dist.MultivariateNormal(torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))
    with pytest.raises(ValueError, match=r"tail index k-hat = .* the KL may be infinite"):
        pv.divergences.kl(p, q)


def test_the_former_short_names_say_where_they_are_now():
    for room, names in pv._MOVED.items():
        for name in names.split():
            with pytest.warns(DeprecationWarning, match=rf"pv\.{room}\.{name} now"):
                assert getattr(pv, name) is getattr(getattr(pv, room), name)
    with pytest.raises(AttributeError):
        pv.no_such_name  # noqa: B018
