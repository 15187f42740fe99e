"""Densities of latents and data beyond the bounds of their law: nothing, whatever torch's formula gives there."""

import math
import random

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import integrate, stats
from torch.distributions import transforms as t

import pyrovae as pv
from pyrovae.programs.outside import log_prob_within

from .against_pyro import assert_ends_as_pyro
from .every_way import F64

ONE = torch.ones((), dtype=F64)
INF = math.inf
# Laws of a number, and the interval on which each has its mass.
BASES = {
    "Exponential": (lambda: dist.Exponential(2 * ONE), 0, INF),
    "Pareto": (lambda: dist.Pareto(ONE, 5.0), 1, INF),
    "Weibull": (lambda: dist.Weibull(ONE, ONE), 0, INF),
    "Gamma": (lambda: dist.Gamma(ONE, ONE), 0, INF),
    "Beta": (lambda: dist.Beta(ONE, ONE), 0, 1),
    "Kumaraswamy": (lambda: dist.Kumaraswamy(2 * ONE, 2 * ONE), 0, 1),
    "Uniform": (lambda: dist.Uniform(-ONE, 2.0), -1, 2),
    "HalfNormal": (lambda: dist.HalfNormal(ONE), 0, INF),
    "folded": (lambda: dist.FoldedDistribution(dist.Normal(ONE, 1.0)), 0, INF),
    "InverseGamma": (lambda: dist.InverseGamma(ONE, ONE), 0, INF),
    "LogNormal": (lambda: dist.LogNormal(0 * ONE, 0.5), 0, INF),
    "Normal": (lambda: dist.Normal(ONE, 1.0), -INF, INF),
    "VonMises": (lambda: dist.VonMises(ONE, 2 * ONE), -math.pi, math.pi),
    "Paretos": (
        lambda: dist.MixtureSameFamily(
            dist.Categorical(torch.tensor([0.3, 0.7], dtype=F64)),
            dist.Pareto(torch.tensor([1.0, 2.0], dtype=F64), 5.0),
        ),
        1,
        INF,
    ),
}


@pytest.mark.parametrize("seed", range(80))
def test_a_law_has_mass_where_its_base_is_mapped_to(seed):
    """A base, up to three monotone transforms: a density inside of the interval's image, and none outside of it."""
    rng = random.Random(seed)
    name = rng.choice(list(BASES))
    make, low, high = BASES[name]
    steps = []
    for _ in range(rng.randrange(4)):
        affine = t.AffineTransform(
            rng.uniform(-2, 2) * ONE, rng.choice([-1, 1]) * rng.uniform(0.5, 1.5) * ONE
        )
        steps.append(rng.choice([affine, affine, t.SigmoidTransform(), t.TanhTransform(), t.ExpTransform()]))
    law = make()
    if steps:
        law = dist.TransformedDistribution(law, [t.ComposeTransform(steps)] if rng.random() < 0.3 else steps)
    ends = torch.tensor([low, high], dtype=F64)
    for step in steps:
        ends = step(ends)
    low, high = ends.sort()[0].tolist()
    with pyro.validation_enabled(False):
        pyro.set_rng_seed(seed)
        draws = law.sample((1000,))
        lp = log_prob_within(law, draws, law.log_prob(draws))
        # Where the transforms saturate, a draw is the end itself.
        assert bool((lp > -torch.inf)[(draws - ends[0]).abs().minimum((draws - ends[1]).abs()) > 1e-9].all())
        z = torch.linspace(-9, 9, 3601, dtype=F64) + 1e-3 * math.pi
        lp = log_prob_within(law, z, law.log_prob(z))
        assert lp[(z < low - 1e-9) | (z > high + 1e-9)].eq(-torch.inf).all(), name
        middle = draws.median() + 1e-3 * torch.linspace(-1, 1, 9, dtype=F64) * (
            draws.quantile(0.7) - draws.median()
        )
        assert log_prob_within(law, middle, law.log_prob(middle)).isfinite().all(), name


WRAPPED = {
    "bare": lambda law: law,
    "mask": lambda law: law.mask(True),
    "expand": lambda law: dist.torch_distribution.ExpandedDistribution(law, [3]),
    "to_event": lambda law: law.expand([3]).to_event(0),
    "shifted twice": lambda law: dist.TransformedDistribution(
        law, [t.AffineTransform(ONE, 2 * ONE), t.AffineTransform(-0.5 * ONE, 0.5 * ONE)]
    ),
    "chosen": lambda law: dist.MaskedMixture(torch.tensor(True), dist.Normal(0 * ONE, ONE), law),
    "mixture of mixtures": lambda law: dist.MixtureSameFamily(
        dist.Categorical(torch.ones(1, dtype=F64)), law.expand([1])
    ),
}


@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED)
def test_components_of_a_mixture_have_bounds_of_their_own(wrapped):
    z = torch.tensor([0.5, 1.5, 3.0], dtype=F64)
    with pyro.validation_enabled(False):
        law = wrapped(BASES["Paretos"][0]())
        found = log_prob_within(law, z, law.log_prob(z)).exp()
    right = 0.3 * stats.pareto.pdf(z, 5) + 0.7 * stats.pareto.pdf(z, 5, scale=2)
    torch.testing.assert_close(found, torch.from_numpy(right))


def test_an_observed_mixture_whose_bounds_are_latents():
    """x of a mixture of z + Exp(1) and z + 2 + Exp(1), against an integral; bare, masked and chosen."""
    x = torch.tensor([0.3, 1.0, 2.5], dtype=F64)
    shifts, half = torch.tensor([0.0, 2.0], dtype=F64), torch.tensor([0.5, 0.5], dtype=F64)

    def mixture(z):
        loc = z[..., None] + shifts
        return dist.MixtureSameFamily(
            dist.Categorical(half),
            dist.TransformedDistribution(dist.Exponential(torch.ones_like(loc)), t.AffineTransform(loc, 1.0)),
        )

    z = torch.linspace(-12, 12, 480_001, dtype=F64)
    parts = [torch.exp(-(v - s - z)) * (v - s >= z) for v in x for s in shifts]
    density = torch.stack(parts).reshape(3, 2, -1).mean(1) * dist.Normal(0.0, 1.0).log_prob(z).exp()
    right = (density.sum(-1) * 5e-5).log()
    wraps = (
        mixture,
        lambda z: mixture(z).mask(True),
        lambda z: dist.MaskedMixture(torch.ones_like(z).bool(), dist.Normal(z, 1.0), mixture(z)),
    )
    for wrap in wraps:
        model, guide = pair(dist.Normal(0 * ONE, 1.0), wrap)
        pyro.set_rng_seed(0)
        log_w = pv.log_weights(model, guide, x, num_samples=20_000)
        found = log_w.logsumexp(0) - math.log(len(log_w))
        sem = (2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)).neg().exp().sqrt()
        assert bool(((found - right).abs() < 4 * sem + 1e-3).all()), (found, right)


def test_transforms_whose_codomain_is_not_what_they_declare():
    """Pyro's ELU declares positive numbers; one of the user's own may declare anything."""

    class Shift(t.Transform):
        domain, codomain, bijective, sign = t.constraints.real, t.constraints.positive, True, 1

        def _call(self, u):
            return u - 3

        def _inverse(self, v):
            return v + 3

        def log_abs_det_jacobian(self, u, v):
            return torch.zeros_like(u)

    for part in (dist.transforms.ELUTransform(), Shift()):
        law = dist.TransformedDistribution(dist.Normal(0 * ONE, ONE), [part, t.AffineTransform(ONE, ONE)])
        with pyro.validation_enabled(False):
            pyro.set_rng_seed(0)
            draws = law.sample((1000,))
            lp = law.log_prob(draws)
            assert torch.equal(log_prob_within(law, draws, lp), lp)


def test_wrappers():
    """Through `.to_event`, `.expand`, `.mask` and a masked mixture; masked elements count as inside."""
    law = dist.Exponential(torch.ones(3, dtype=F64))
    z = torch.tensor([[1.0, 2.0, 3.0], [1.0, -2.0, 3.0]], dtype=F64)
    with pyro.validation_enabled(False):
        seen = log_prob_within(law.to_event(1), z, law.to_event(1).log_prob(z))
        assert seen.tolist() == [-6.0, -math.inf]
        wide = dist.Exponential(ONE).expand([2, 3]).to_event(1)
        assert log_prob_within(wide, z, wide.log_prob(z)).tolist() == [-6.0, -math.inf]
        hidden = law.mask(torch.tensor([True, False, True])).to_event(1)
        assert log_prob_within(hidden, z, hidden.log_prob(z)).tolist() == [-4.0, -4.0]
        two = dist.MaskedMixture(torch.tensor([False, True, False]), law, dist.Normal(0 * law.rate, 1.0))
        found = log_prob_within(two, z[1], two.log_prob(z[1]))
        torch.testing.assert_close(found, two.log_prob(z[1]))
        assert log_prob_within(two, -z[0], two.log_prob(-z[0])).isinf().tolist() == [True, False, True]


def pair(prior, likelihood):
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior)
            pyro.sample("x", likelihood(z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, ONE))

    return model, guide


def shifted(z):
    return dist.TransformedDistribution(dist.Exponential(torch.ones_like(z)), t.AffineTransform(z, 1.0))


BEYOND = {
    "Exponential prior": (
        dist.Exponential(ONE),
        lambda z: dist.Normal(z, ONE),
        lambda z, x: stats.expon.pdf(z) * stats.norm.pdf(x, z),
    ),
    "Gamma(1) prior": (
        dist.Gamma(ONE, ONE),
        lambda z: dist.Normal(z, ONE),
        lambda z, x: stats.expon.pdf(z) * stats.norm.pdf(x, z),
    ),
    "shifted prior": (
        dist.TransformedDistribution(dist.Exponential(ONE), t.AffineTransform(-0.5 * ONE, 2 * ONE)),
        lambda z: dist.Normal(z, ONE),
        lambda z, x: stats.expon.pdf(z, -0.5, 2) * stats.norm.pdf(x, z),
    ),
    "a bound of the data that is a latent": (
        dist.Normal(0 * ONE, 1.0),
        shifted,
        lambda z, x: stats.norm.pdf(z) * stats.expon.pdf(x, z),
    ),
    "Pareto likelihood": (
        dist.Normal(0 * ONE, 1.0),
        lambda z: dist.Pareto(z.exp(), 3 * ONE),
        lambda z, x: stats.norm.pdf(z) * stats.pareto.pdf(x, 3, scale=math.exp(z)),
    ),
}


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("name", BEYOND)
def test_a_guide_that_draws_beyond_a_bound(name, compile):
    """Draws beyond it have weight zero: IS, and `Exact`, are those of an integral by SciPy."""
    prior, likelihood, joint = BEYOND[name]
    model, guide = pair(prior, likelihood)
    x = torch.tensor([0.3, 1.0, 2.2], dtype=F64)
    right = []
    for v in x.tolist():
        value = integrate.quad(
            lambda z, v=v: joint(z, v), -20, 20, points=[-0.5, 0.0, v, math.log(v)], limit=500
        )[0]
        right.append(math.log(value))
    right = torch.tensor(right, dtype=F64)
    pyro.set_rng_seed(0)
    log_w = pv.log_weights(model, guide, x, num_samples=20_000, compile=compile)
    found = log_w.logsumexp(0) - math.log(len(log_w))
    sem = (2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)).neg().exp().sqrt()
    assert bool(((found - right).abs() < 4 * sem).all()), (found, right, sem)
    exact = pv.evidence(model, guide, x, estimators=[pv.Exact()], progress=False)["Exact"]
    torch.testing.assert_close(exact.per_datum, right, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "name", ["Exponential prior", "shifted prior", "a bound of the data that is a latent"]
)
def test_a_compiled_step_refuses_where_pyro_does(name):
    """A guide that drifts beyond the bound ends in Pyro's error, at Pyro's step."""
    prior, likelihood, _ = BEYOND[name]
    model, _ = pair(prior, likelihood)
    x = torch.tensor([0.3, 1.0], dtype=F64)
    # The prior's or the likelihood's bound is reached from afar.
    start = -9.0 if name.startswith("a bound") else 9.0
    if name == "shifted prior":
        prior = dist.TransformedDistribution(dist.Exponential(ONE), t.AffineTransform(6.0 * ONE, ONE))
        model, _ = pair(prior, likelihood)

    def guide(x):
        m = pyro.param("m", torch.tensor(start, dtype=F64))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(m, 0.05 * ONE).expand([len(x)]))

    assert_ends_as_pyro(model, guide, x, "to be within the support")


def test_divergence_to_a_law_with_a_bound_below_a_transform():
    with pyro.validation_enabled(False):
        q = dist.TransformedDistribution(dist.Exponential(ONE), t.AffineTransform(ONE, ONE))
        assert pv.divergences.kl(dist.Normal(ONE, 1.0), q, num_samples=1000).value == math.inf
