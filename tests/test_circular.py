"""Circular laws have their mass on one period, wherever the library moves or weighs a latent."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm, vonmises

import pyrovae as pv
from pyrovae.programs.latents.supports import bijection
from pyrovae.programs.outside import log_prob_within

F64 = torch.float64
X = torch.tensor([3.3, -3.0, 0.0], dtype=F64)


def t(value):
    return torch.tensor(value, dtype=F64)


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.VonMises(t(2.0), t(1.5)))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def normal(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x, 1.2))


def circular(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.VonMises(x, t(0.7)))


def truth(power=1.0):
    """By SciPy: an angle that the law draws lies in [-pi, pi)."""

    def density(z, x):
        return (vonmises.pdf(z, 1.5, loc=2.0) * norm.pdf(x, z, 1.0)) ** power

    return t([math.log(quad(density, -math.pi, math.pi, args=(float(x),), epsabs=1e-13)[0]) for x in X])


@pytest.mark.parametrize("guide", [normal, circular])
@pytest.mark.parametrize(
    "estimator",
    [pv.IS(4000), pv.Exact(), pv.AIS(16, 64, leapfrog=3), pv.AIS(16, 64, start="prior", leapfrog=3)],
    ids=lambda e: f"{e.name}",
)
def test_every_estimator_counts_log_prob_within(guide, estimator):
    """A normal guide draws beyond it: there p(z) is periodic, and would count twice."""
    e = pv.evidence(model, guide, X, estimators=[estimator])[estimator.name]
    if estimator.name == "Exact":
        # torch's Bessel function is right to 1e-7.
        torch.testing.assert_close(e.per_datum, truth(), rtol=0, atol=1e-6)
        return
    ratio = (e.per_datum - truth()).exp()
    assert (ratio - 1).abs().max() < 4 * float(e.variance.max().sqrt()) + 0.02
    assert e.certificate < float(truth().mean())


def test_free_energies_and_sandwich():
    free = pv.thermodynamics.free_energy(model, circular, X, estimator=pv.Exact(), num_samples=50)
    expected = torch.stack([-T * truth(1 / T) for T in free.temperatures.tolist()])
    torch.testing.assert_close(free.helmholtz, expected, rtol=0, atol=2e-6)
    bracket = pv.sandwich(model, circular, X, simulate=16, ais=pv.AIS(16, 16, leapfrog=3)).brackets[-1]
    gap = bracket.upper - bracket.lower
    assert -3 * float(gap.std()) / math.sqrt(16) < float(gap.mean()) < 0.3


LAWS = {
    "plain": dist.VonMises(t(3.0), t(1.5)),
    "independent": dist.VonMises(t([3.0, 0.2]), t(1.5)).to_event(1),
    "expanded": dist.VonMises(t(3.0), t(1.5)).expand([4]),
    "masked": dist.VonMises(t(3.0), t(1.5)).mask(torch.tensor(True)),
    "moved": dist.TransformedDistribution(
        dist.VonMises(t(3.0), t(1.5)), [torch.distributions.AffineTransform(1.0, 2.0)]
    ),
    "mixture": dist.MixtureSameFamily(
        dist.Categorical(t([0.4, 0.6])), dist.VonMises(t([0.0, 3.0]), t([1.0, 9.0]))
    ),
    "torus": dist.SineBivariateVonMises(t(0.3), t(-2.0), t(1.5), t(1.0), t(0.4)),
    "skewed": dist.SineSkewed(dist.VonMises(t([0.5, 3.0]), t(1.0)).to_event(1), t([0.2, -0.6])),
}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_the_map_covers_one_period(law):
    """Draws are inside of it and map back and forth; the density integrates to 1 over it, and is nothing beyond."""
    with pyro.validation_enabled(False):
        pyro.set_rng_seed(0)
        z, transform = law.sample((500,)), bijection(law)
        assert (log_prob_within(law, z, law.log_prob(z)) > -torch.inf).all()
        torch.testing.assert_close(transform(transform.inv(z)), z)
        far = z + (4 if type(law) is dist.TransformedDistribution else 2) * math.pi
        assert (log_prob_within(law, far, law.log_prob(far)) == -torch.inf).all()
        width = law.event_shape[-1] if law.event_shape else 1
        line = torch.linspace(-60, 60, 2001, dtype=F64)
        u = torch.cartesian_prod(*[line[::8]] * 2) if width == 2 else line
        wide = u.reshape(-1, *(1,) * len(law.batch_shape), *law.event_shape)
        wide = wide.expand(len(u), *law.batch_shape, *law.event_shape)
        z = transform(wide)
        jacobian = transform.log_abs_det_jacobian(wide, z)
        lp = law.log_prob(z) + jacobian.reshape(*law.log_prob(z).shape, -1).sum(-1)
        step = (0.06 * 8) ** 2 if width == 2 else 0.06
        torch.testing.assert_close((lp.exp() * step).sum(0), torch.ones_like(lp[0]), rtol=0, atol=3e-3)


def test_other_laws_are_as_they_were():
    law, z = dist.Normal(t(0.0), 1.0), torch.linspace(-9, 9, 5, dtype=F64)
    assert log_prob_within(law, z, z) is z
    assert isinstance(bijection(law), type(torch.distributions.biject_to(law.support)))
    pareto = dist.GeneralizedPareto(t(1.0), t(1.0), t(0.5))  # its interval has no upper end
    assert torch.isfinite(bijection(pareto)(z)).all() and (bijection(pareto)(z) > 1).all()


def unmapped(prior, event):
    def sphere(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(z[..., 0] if event else z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", prior)

    return sphere, guide


@pytest.mark.parametrize(
    ("prior", "event", "word"),
    [
        (dist.ProjectedNormal(t([1.0, 0.0, 0.0])), True, "ProjectedNormal on a sphere"),
        (
            dist.RelaxedBernoulliStraightThrough(t(0.5), probs=t(0.3)),
            False,
            "RelaxedBernoulliStraightThrough, whose draws are rounded",
        ),
    ],
)
@pytest.mark.parametrize("estimator", [pv.Exact(), pv.AIS(5, 2)], ids=lambda e: e.name)
def test_what_cannot_be_moved_is_refused_in_words(prior, event, word, estimator):
    with pytest.raises(ValueError, match=rf"'z' \({word}.*try pv.IS"):
        pv.evidence(*unmapped(prior, event), t([0.2, 0.1]), estimators=[estimator])
