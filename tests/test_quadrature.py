"""Quadrature states what it does not know: tails, unvisited mass, rounding, priors that are no densities."""

import dataclasses
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import pyrovae as pv
from pyrovae.evidence.quadrature.integrate import integrate
from pyrovae.evidence.quadrature.kronrod import _GAUSS, _KRONROD, _NODES
from pyrovae.evidence.quadrature.panels import Panels

F64 = torch.float64


def t(value):
    return torch.tensor(value, dtype=F64)


def pair(prior, likelihood, guide, dim=-1):
    def model(x):
        with pyro.plate("data", len(x), dim=dim):
            z = pyro.sample("z", prior)
            pyro.sample("x", likelihood(z), obs=x)

    def q(x):
        with pyro.plate("data", len(x), dim=dim):
            pyro.sample("z", guide(x))

    return model, q


def exact(programs, x, **options):
    return pv.evidence(*programs, x, estimators=[pv.Exact(**options)])["Exact"]


def right(e, truth, at_most=1e-5):
    """Within the stated error, and that is small."""
    truth = torch.as_tensor(truth, dtype=F64)
    error = e.details["numerical_error"]
    assert ((e.per_datum - truth).abs() <= error + 1e-12).all(), (e.per_datum - truth, error)
    assert (error <= at_most).all()


def modes(weights, means, scales):
    return dist.MixtureSameFamily(dist.Categorical(t(weights)), dist.Normal(t(means), t(scales)))


def log_sum(weights, means, scales, x, noise):
    """ln p(x) of a Gaussian mixture with Gaussian noise, in closed form."""
    parts = [
        w * math.exp(-0.5 * (x - m) ** 2 / (s * s + noise**2)) / math.sqrt(2 * math.pi * (s * s + noise**2))
        for w, m, s in zip(weights, means, scales, strict=True)
    ]
    return math.log(sum(parts))


def test_the_rules_are_of_their_order():
    """Kronrod's of 15 points is exact for powers up to 22, Gauss's of 7 up to 13."""
    for rule, degree in ((_KRONROD, 22), (_GAUSS, 13)):
        for power in range(degree + 1):
            truth = 2 / (power + 1) if power % 2 == 0 else 0.0
            assert float((rule * _NODES**power).sum()) == pytest.approx(truth, abs=1e-14)


@pytest.mark.parametrize("narrow", [0.05, 1e-4])
def test_a_mode_that_only_the_prior_knows_is_visited(narrow):
    law = ([0.3, 0.7], [0.0, 15.0], [1.0, narrow])
    programs = pair(modes(*law), lambda z: dist.Normal(z, 10.0), lambda x: dist.Normal(x * 0, 1.0))
    x = t([0.0, 3.0])
    right(exact(programs, x), [log_sum(*law, float(v), 10.0) for v in x])


def test_tails_beyond_any_grid_are_counted():
    prior = dist.Cauchy(t(0.0), 1.0)
    programs = pair(prior, lambda z: dist.Bernoulli(logits=z), lambda x: dist.Normal(x * 0, 1.0))
    right(exact(programs, t([0.0, 1.0])), math.log(0.5))


def test_a_tail_that_no_grid_holds_is_refused():
    """1 % of a Student's t with .05 degrees of freedom lies beyond 1e40, of one with .002 half beyond all numbers."""

    def programs(freedom):
        prior = dist.StudentT(t(freedom), t(0.0), t(1.0))
        return pair(prior, lambda z: dist.Bernoulli(logits=z), lambda x: dist.Normal(x * 0, 1.0))

    right(exact(programs(0.05), t([0.0, 1.0])), math.log(0.5))
    with pytest.raises(ValueError, match="integrates to 1 over the support that its laws declare, got 0"):
        exact(programs(0.002), t([0.0, 1.0]))


def test_two_dims_of_both_kinds():
    """A narrow mode in a plane, and Cauchy tails on both axes."""
    centre = t([[0.0, 0.0], [6.0, -4.0]])
    scale = t([[1.0, 1.0], [0.05, 0.05]])
    law = dist.MixtureSameFamily(dist.Categorical(t([0.4, 0.6])), dist.Normal(centre, scale).to_event(1))
    guide = lambda x: dist.Normal(t([0.0, 0.0]), 1.0).expand([len(x), 2]).to_event(1)  # noqa: E731
    programs = pair(law, lambda z: dist.Normal(z.sum(-1), 3.0), guide)
    truth = log_sum([0.4, 0.6], [0.0, 2.0], [math.sqrt(2), 0.05 * math.sqrt(2)], 1.0, 3.0)
    right(exact(programs, t([1.0])), truth)
    tails = dist.Cauchy(t([0.0, 0.0]), 1.0).to_event(1)
    programs = pair(tails, lambda z: dist.Bernoulli(logits=z[..., 0]), guide)
    right(exact(programs, t([1.0]), tolerance=1e-4), math.log(0.5), 2e-4)


class Wrapped(dist.TorchDistribution):
    """A user's own periodic law, which says that it lives on the real line."""

    arg_constraints = {}  # noqa: RUF012
    support = dist.constraints.real

    def sample(self, sample_shape=()):
        return 2 * math.pi * torch.rand(self.shape(sample_shape), dtype=F64)

    def log_prob(self, value):
        return value.cos() - math.log(2 * math.pi * 1.2660658777520082)

    def expand(self, batch_shape, _instance=None):
        return Wrapped(torch.Size(batch_shape))


def test_a_prior_that_is_no_density_is_refused():
    programs = pair(Wrapped(), lambda z: dist.Normal(z, 1.0), lambda x: dist.Normal(x, 1.0))
    with pytest.raises(ValueError, match="expected a prior whose density integrates to 1 over the support"):
        exact(programs, t([0.5]))


@pytest.mark.parametrize("source", ["the prior", "the guide"])
def test_an_integral_that_draws_contradict_is_refused(monkeypatch, source):
    """As if nodes had missed all but a tenth of the mass, without a trace in their own errors."""
    from pyrovae.evidence.estimators import exact as module

    def missing(*args, **options):
        found = integrate(*args, **options)
        return dataclasses.replace(found, value=found.value - math.log(10))

    monkeypatch.setattr(module, "integrate", missing)
    width = 1.0 if source == "the guide" else 1e-3  # a guide this narrow contradicts nothing
    likelihood = 2.0 if source == "the prior" else 0.02  # too narrow for draws of the prior to say so
    programs = pair(
        dist.Normal(t(0.0), 1.0),
        lambda z: dist.Normal(z, likelihood),
        lambda x: dist.Normal(x, width * likelihood),
    )
    with pytest.raises(ValueError, match=f"draws do not contradict.*draws of {source} give at least"):
        exact(programs, t([0.5]))


def test_rounding_is_part_of_the_error():
    """Thousands of nats: summed in float64 where the program runs in it, else the error holds what the sum has lost."""

    def programs(dtype, only=False):
        b = torch.full((400,), 30.0, dtype=dtype)

        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=dtype), 1.0))
                assert not only or z.dtype == dtype
                pyro.sample("x", dist.Normal(z.unsqueeze(-1) + b, 1.0).to_event(1), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal((x - b).mean(-1), 0.1))

        return model, guide

    x = 34.0 + 4 * torch.randn(3, 400, generator=torch.Generator().manual_seed(0))
    double = exact(programs(F64), x.to(F64))
    for single in (exact(programs(torch.float32), x), double):
        right(single, double.per_datum, at_most=1e-6)
    single = exact(programs(torch.float32, only=True), x)
    right(single, double.per_datum, at_most=1e-1)
    assert (single.details["numerical_error"] > 1e-4).all()


def test_what_a_law_loses_within_itself_is_part_of_the_error():
    """In float32 alone, a sum that cancels: far more than eps times its value, which is all that the value tells."""

    def programs(big):
        def model(x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
                assert z.dtype == torch.float32
                pyro.sample("x", dist.Normal((z + big) - big, 1.0), obs=x)

        return model, lambda x: guide(x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.7))

    x = torch.tensor([0.3, -1.2])
    truth = dist.Normal(t(0.0), math.sqrt(2.0)).log_prob(x.double())
    for big in (1e2, 1e4):
        right(exact(programs(big), x, tolerance=0.1), truth, at_most=0.2)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
@pytest.mark.parametrize(
    "law, bernoulli",
    [
        (lambda one: dist.Beta(0.05 * one, 0.05 * one), lambda z: z),
        (lambda one: dist.Beta(5.0 * one, 0.02 * one), lambda z: z),
        (lambda one: dist.Dirichlet(0.05 * torch.ones(3, dtype=one.dtype)), lambda z: z[..., 0]),
        (lambda one: dist.Gamma(0.02 * one, one), lambda z: 1 / (1 + z)),
        (
            lambda one: dist.TransformedDistribution(
                dist.Normal(0 * one, 30.0), dist.transforms.SigmoidTransform()
            ),
            lambda z: z,
        ),
    ],
)
def test_laws_with_their_mass_at_an_edge(law, bernoulli, dtype):
    """Nearer to 0 or 1 than numbers are. p(x = 1) is the mean; of Gamma, an integral by parts of ln z."""
    one = torch.ones((), dtype=dtype)
    prior = law(one)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Bernoulli(bernoulli(z)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", prior)

    if isinstance(prior, dist.Gamma):
        s = torch.linspace(-3000, 8, 4_000_001, dtype=F64)
        a = prior.concentration.double()
        mean = float(
            (a * s - s.exp() - torch.lgamma(a) - torch.nn.functional.softplus(s)).logsumexp(0).exp()
            * 3008
            / 4e6
        )
    elif isinstance(prior, dist.TransformedDistribution):
        mean = 0.5
    else:
        mean = float(prior.mean.double().flatten()[0])
    x = torch.tensor([0.0, 1.0], dtype=dtype)
    e = exact((model, guide), x)
    truth = torch.tensor([1 - mean, mean], dtype=F64).log()
    torch.testing.assert_close(e.per_datum, truth, rtol=0, atol=2e-5)
    assert (e.details["numerical_error"] < 1e-4).all()


def test_latents_under_a_mask_keep_their_own_factor():
    """A datum that a mask leaves out has ln p = 0; a latent alone that is left out still integrates to one."""
    seen = torch.tensor([True, False])

    def model(x):
        with pyro.plate("data", len(x)), poutine.mask(mask=seen[: len(x)]):
            z = pyro.sample("z", dist.Normal(t(0.0), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)), poutine.mask(mask=seen[: len(x)]):
            pyro.sample("z", dist.Normal(x / 2, 1.0))

    law = torch.distributions.Normal(t(0.0), math.sqrt(2.0))
    right(exact((model, guide), t([0.7, 0.7])), [float(law.log_prob(t(0.7))), 0.0])


def test_the_word_exact_is_kept_for_what_is():
    normal = dist.Normal(t(0.0), 1.0)
    programs = pair(normal, lambda z: dist.Normal(z, 1.0), lambda x: dist.Normal(x / 2, 1.0))
    ev = pv.evidence(*programs, t([0.3]), estimators=[pv.Exact()])
    assert "known by quadrature" in ev.verdict and "exact" not in ev.verdict
    declared = pv.program(log_evidence=lambda x: x * 0)(programs[0])
    assert (
        "is exact (declared)" in pv.evidence(declared, programs[1], t([0.3]), estimators=[pv.Exact()]).verdict
    )


def test_data_that_are_done_wait_for_others():
    """Easy and hard integrands side by side have the answers that they have alone."""
    means, scales = t([0.0, 3.0, -200.0]), t([1.0, 1e-3, 40.0])

    def log_density(u, rows):
        return dist.StudentT(t(1.5), means[rows], scales[rows]).log_prob(u[..., 0])[None]

    start = torch.zeros(3, 1, dtype=F64), torch.eye(1, dtype=F64).expand(3, 1, 1)
    found = integrate(log_density, *start, 1e-8)
    assert (found.value.abs() <= found.error + 1e-12).all() and (found.error < 1e-7).all()


@pytest.mark.parametrize("dim", [1, 2])
def test_a_jump_past_the_last_node_of_a_panel_is_in_the_error(dim):
    """Both rules have all their nodes on one side of it, and agree on a wrong number."""
    edges = t([-36.0, 0.0, 1.0, 36.0]).reshape(-1, 1, 1).expand(-1, 1, dim)
    sinks = (t(0.9977), t(-0.0012), t(1.0031))  # past the last nodes of panels, from within and from without

    for jump in sinks:

        def at(t, rows, jump=jump):
            inside = (t[..., 0] >= -20) & (t[..., 0] < jump) & (t[..., 1:].abs() < 20).all(-1)
            return torch.where(inside, -t.square().sum(-1), -torch.inf)[None]

        truth = 0.5 * math.sqrt(math.pi) * (1 + math.erf(float(jump))) * math.pi ** (0.5 * (dim - 1))
        panels = Panels.over(at, edges, 36.0)
        for _ in range(12):
            panels.halve(at, torch.tensor([True]), t([1.0]), t([0.0]), None)
        total, rule, _ = panels.totals()
        assert float((total[0] - math.log(truth)).abs()) <= 1.5 * float(rule), (jump, total, rule)


@pytest.mark.parametrize("waves, noise", [(5.0, 1e-3), (20.0, 1e-3)])
def test_modes_narrower_than_the_space_between_nodes_are_found_or_refused(waves, noise):
    """z ~ N(0, 1), x ~ N(sin kz, s): a mode of width s / k at each root of sin kz = x, none of them met by a node."""
    x = t([0.1, 0.7])
    programs = pair(
        dist.Normal(t(0.0), 1.0),
        lambda z: dist.Normal(torch.sin(waves * z), noise),
        lambda x: dist.Normal(x * 0, t(1.0)),
    )
    root = x.asin()[:, None]
    turns = 2 * math.pi * torch.arange(-200, 201)
    roots = torch.cat([root + turns, math.pi - root + turns], 1) / waves
    inside = roots.abs() < 9
    width = noise / (waves * (waves * roots).cos().abs())
    z = roots + width * torch.linspace(-12, 12, 1001, dtype=F64)[:, None, None]
    terms = dist.Normal(t(0.0), 1.0).log_prob(z) + dist.Normal(torch.sin(waves * z), noise).log_prob(
        x[:, None]
    )
    truth = (terms.exp() * inside * width * 24 / 1000).sum((0, 2)).log()
    try:
        right(exact(programs, x), truth)
        assert waves < 20
    except ValueError as error:  # more modes than there are panels for
        assert waves == 20 and "settles" in str(error)


def lights(x):
    return dist.Normal(x * 0 + 1, 2.0)


def halves(x):
    return dist.LogNormal(x * 0, 1.0)


HEAVY = [  # prior, likelihood, x, guide, the first T without an integral
    (dist.HalfCauchy(1.0), lambda z: dist.Bernoulli(logits=z), 1.0, halves, 2.0),
    (dist.Cauchy(0.0, 1.0), lambda z: dist.Bernoulli(logits=z), 1.0, lights, 2.0),
    (dist.HalfCauchy(1.0), lambda z: dist.StudentT(2.0, z, 0.3), 1.7, halves, 5.0),
    (dist.HalfCauchy(1.0), lambda z: dist.Normal(0.0, z), 0.7, halves, 3.0),
    (dist.Pareto(1.0, 1.5), lambda z: dist.Normal(0.0, z), 0.5, halves, 3.5),
]


@pytest.mark.parametrize("case", range(len(HEAVY)))
@pytest.mark.parametrize("more", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_free_energies_that_are_infinite_are_refused(case, more, seed):
    """p^{1/T} falls as z^-a with a <= 1: the numbers end (1e154, where squares do), and the integrand does not."""
    prior, likelihood, x, guide, first = HEAVY[case]
    programs = pair(prior, likelihood, guide)
    options = {"temperatures": (first + more,), "estimator": pv.Exact(), "num_samples": 4, "seed": seed}
    with pytest.raises(ValueError, match="infinite one for datum 0 at T"):
        pv.thermodynamics.free_energy(*programs, torch.tensor([x]), **options)


@pytest.mark.parametrize(("temperature", "seed"), [(1.3, 0), (1.9, 0), (1.9, 1)])
def test_free_energies_of_heavy_tails_are_right(temperature, seed):
    """z^-1.05 at T = 1.9: a tenth of the integral lies beyond 1e18, in no grid around the peak."""
    z = torch.linspace(-330.0, 330.0, 2_000_001, dtype=F64)  # asinh
    density = -(math.log(math.pi) + torch.logaddexp(t(0.0), 2 * z.sinh().abs().log()))
    density = density + torch.nn.functional.logsigmoid(z.sinh())
    log_terms = density / temperature + z.cosh().log()
    exponent = 2 / temperature - 1  # of e^(-a asinh z), beyond 330
    beyond = (log_terms[-1] - math.log(exponent)).exp()
    truth = ((log_terms.logsumexp(0) + (z[1] - z[0]).log()).exp() + beyond).log()
    programs = pair(dist.Cauchy(0.0, 1.0), lambda z: dist.Bernoulli(logits=z), lights)
    options = {"temperatures": (temperature,), "estimator": pv.Exact(), "num_samples": 4, "seed": seed}
    found = pv.thermodynamics.free_energy(*programs, torch.ones(1), **options)
    error = float(found.details["numerical_error"])
    assert error <= 1e-5
    assert abs(float(found.helmholtz) / -temperature - float(truth)) <= error + 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_an_infinite_density_of_data_is_refused(seed):
    """Normal(0 | 0, s) = c / s, and e^-s / s has no integral at 0; of x = .5 it has one."""
    programs = pair(
        dist.Exponential(1.0), lambda z: dist.Normal(0.0, z), lambda x: dist.Gamma(x * 0 + 1, 1.0)
    )
    with pytest.raises(ValueError, match="infinite one for datum 0 "):
        pv.evidence(*programs, torch.tensor([0.0]), estimators=[pv.Exact()], seed=seed)
    v = torch.linspace(-12.0, 6.0, 400_001, dtype=F64)  # ln s
    log_terms = v - v.exp() - v - 0.5 * math.log(2 * math.pi) - 0.5 * (0.5 / v.exp()).square()
    truth = log_terms.logsumexp(0) + (v[1] - v[0]).log()
    right(pv.evidence(*programs, torch.tensor([0.5]), estimators=[pv.Exact()], seed=seed)["Exact"], truth)


def test_a_far_narrow_peak_of_a_heavy_prior_is_within_the_tolerance():
    """Draws of Cauchy laws too are made in float64: in float32 x = 300 was had to .12 nats, and no peak was sought."""
    programs = pair(
        dist.Cauchy(0.0, 1.0), lambda z: dist.Normal(z, 0.01), lambda x: dist.StudentT(3.0, x * 0, 2.0)
    )
    found = exact(programs, torch.tensor([300.0, 300.0]))
    right(found, -math.log(math.pi * (1 + 300.0**2)) + 0.5 * 6 / 300**2 * 0.01**2)  # p''/p = 6 / z^2 far out
    assert "no gradients" not in found.details["method"]


def test_numerical_errors_beyond_the_tolerance_are_shown():
    """Rounding that the program's own float32 leaves is in ± and in words, of evidence and of free energies."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            assert z.dtype == torch.float32
            pyro.sample("x", dist.Normal(z.unsqueeze(-1) + torch.full((400,), 30.0), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x - 30.0).mean(-1), 0.1))

    x = 34.0 + 4 * torch.randn(3, 400, generator=torch.Generator().manual_seed(0))
    report = pv.evidence(model, guide, x, estimators=[pv.Exact()])
    error = float(report["Exact"].details["numerical_error"].mean())
    assert error > 1e-4
    assert report["Exact"].se_mc == pytest.approx(error)
    assert any("numerical error of" in note for note in report.warnings)
    free = pv.thermodynamics.free_energy(model, guide, x, temperatures=(1.0,), estimator=pv.Exact())
    assert float(free.mean("helmholtz")[2]) == pytest.approx(error, rel=0.5)
    assert any("numerical error of" in note for note in free.warnings)
    assert "numerical error of" in free.table()
