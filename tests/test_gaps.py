"""What the ELBO loses, in parts: against closed forms, on every shape of program, and refused with a reason."""

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import transforms

import pyrovae as pv
from pyrovae.evidence import Sharing
from pyrovae.evidence.core.estimate import Estimate
from pyrovae.evidence.estimators import own_guides
from pyrovae.evidence.gaps.gaps import _best as best_of
from pyrovae.evidence.proposals.local_flow import LocalFlow
from pyrovae.models.vae import VAE
from pyrovae.programs.compile.compiled_gradients import CompiledGradients

from . import handwritten as hw

F64 = torch.float64
QUICK = pv.LocalFit(steps=250, num_particles=16, lr=0.05)
W = torch.tensor([[1.0, 0.9], [0.2, 1.1], [0.7, -0.3]], dtype=F64)
NOISE = 0.5


def linear(num_data=16, width=1.0, shift=0.0, diagonal=False):
    """z ~ N(0, I_2), x ~ N(W z, 0.5); the posterior moved and widened, or its best diagonal stand-in."""
    precision = torch.eye(2, dtype=F64) + W.T @ W / NOISE
    covariance = torch.linalg.inv(precision)
    random = torch.Generator().manual_seed(0)
    z = torch.randn(num_data, 2, generator=random, dtype=F64)
    x = z @ W.T + math.sqrt(NOISE) * torch.randn(num_data, 3, generator=random, dtype=F64)
    law = dist.MultivariateNormal(torch.zeros(3, dtype=F64), W @ W.T + NOISE * torch.eye(3, dtype=F64))

    @pv.program(density="exact", log_evidence=lambda x: law.log_prob(x))
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2, dtype=F64), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ W.T, math.sqrt(NOISE)).to_event(1), obs=x)

    def guide(x):
        loc = x @ W @ covariance / NOISE + shift
        with pyro.plate("data", len(x)):
            if diagonal:
                scale = width * precision.diagonal().rsqrt()
                pyro.sample("z", dist.Normal(loc, scale.expand(len(x), 2)).to_event(1))
            else:
                pyro.sample("z", dist.MultivariateNormal(loc, covariance * width**2))

    return model, guide, x, precision


def near(part, expected, slack=0.0):
    """A mean that is known, within 5 Monte-Carlo errors and what the optimiser leaves."""
    assert abs(part.mean - expected) < 5 * part.se_mc + slack, (part, expected)


def test_a_shifted_guide_of_the_right_family_loses_by_amortisation_alone():
    model, guide, x, precision = linear(width=1.5, shift=0.4)
    gaps = pv.gaps(model, guide, x, estimators=[pv.Exact()], fit=QUICK, num_samples=2000)
    shift = torch.full((2,), 0.4, dtype=F64)
    kl = 0.5 * float(2 * 1.5**2 - 2 - 4 * math.log(1.5) + shift @ precision @ shift)
    assert gaps.evidence.name == "Exact" and kl > 0.9
    near(gaps.amortisation, kl, 2e-3)
    near(gaps.approximation, 0.0, 2e-3)
    near(gaps.total, kl)
    near(gaps.flow_share, 0.0, 3e-3)
    assert (gaps.approximation.per_datum > -5 * gaps.approximation.variance.sqrt() - 1e-3).all()
    added = gaps.amortisation.per_datum + gaps.approximation.per_datum
    torch.testing.assert_close(added, gaps.total.per_datum)
    assert not gaps.conditional and gaps.attributes["kept"] == 0


def test_a_diagonal_guide_of_a_correlated_posterior_has_the_closed_gap():
    """KL(N(m, diag(Lambda)^-1) | N(m, Lambda^-1)) = 1/2 (sum ln Lambda_ii - ln det Lambda), and no amortisation."""
    model, guide, x, precision = linear(diagonal=True)
    gaps = pv.gaps(model, guide, x, fit=QUICK, num_samples=2000)
    closed = 0.5 * float(precision.diagonal().log().sum() - precision.logdet())
    assert closed > 0.05
    near(gaps.approximation, closed, 5e-3)
    near(gaps.amortisation, 0.0, 2e-3)
    near(gaps.flow_share, closed, 5e-3)
    near(gaps.rest, 0.0, 5e-3)
    # And with both defects at once.
    model, guide, x, _ = linear(diagonal=True, width=1.6)
    gaps = pv.gaps(model, guide, x, fit=QUICK, num_samples=2000, flow=False)
    near(gaps.approximation, closed, 5e-3)
    near(gaps.amortisation, 1.6**2 - 1 - 2 * math.log(1.6), 5e-3)
    assert gaps.elbo_flow is None and gaps.flow_share is None and "won by a flow" not in gaps.parts


# One parameter family, plates and subsamples of every kind, auxiliary sites, contexts.
NAMES = ["x[ind], size fixed", "x[ind], all", ".mask()", "inner plate", "auxiliary guide site", "context"]
NAMES += ["factor in the guide", "parameters sized by the data", "poutine.scale", "AutoNormal"]


def test_no_bound_is_chosen_for_its_noise():
    """Two bounds of one truth: the noisy one, higher by 1.5 of its errors, is not taken; one far above is."""

    def bound(name, mean, error):
        one = torch.ones(4, dtype=F64)
        return Estimate(name, "<=", 100, mean * one, 4 * error**2 * one, 0 * one)

    precise, noisy = bound("IS", -1.0, 1e-4), bound("IS, local", -0.985, 0.01)
    assert noisy.se_mc == pytest.approx(0.01)
    assert best_of([precise, noisy]) is precise
    assert best_of([precise, bound("IS, local", -0.9, 0.01)]).name == "IS, local"
    assert best_of([precise, bound("IS, local", -0.9, math.nan)]) is precise
    # Of equal bounds with equal errors the highest is left: over many choices its mean is what the words allow.
    noise = torch.randn(2000, generator=torch.Generator().manual_seed(0)).tolist()
    taken = [best_of([precise, bound("IS, local", -1 + 0.01 * z, 0.01)]).log_evidence for z in noise]
    assert sum(taken) / len(taken) < -1 + 0.0015, "the highest mean would be 0.004 above on average"


@pytest.mark.parametrize("name", NAMES)
def test_programs_of_every_shape(name):
    """The wrong guide is a Gaussian like the posterior: all that it loses is amortisation."""
    case = hw.CASES[name]()
    fit = pv.LocalFit(steps=100, num_particles=8, lr=0.1)
    gaps = pv.gaps(
        case.model, case.wrong, *case.args, estimators=[pv.IS(500)], fit=fit, num_samples=1000, **case.options
    )
    exact = case.log_evidence
    for e in (gaps.elbo, gaps.elbo_local, gaps.elbo_flow):
        assert ((exact - e.per_datum) > -5 * e.variance.sqrt() - 1e-9).all(), e.name
    assert gaps.amortisation.mean > 0.1 - 0.09 * (name == "AutoNormal")
    if name != "AutoNormal":
        near(gaps.approximation, 0.0, 0.01)
    assert abs(float((gaps.elbo_flow.per_datum - exact).mean())) < 4 * gaps.elbo_flow.se_mc + 0.02


def test_digits_vae_has_parts_that_are_not_negative():
    data = pv.data.load("digits")
    torch.manual_seed(0)
    guide = pv.guides.DiagonalGaussian(pv.networks.MLP(64, (32,), 32), 4)
    vae = VAE(
        prior=pv.priors.StandardNormal(4),
        likelihood=pv.likelihoods.Binomial(pv.networks.MLP(4, (32,), 64), total_count=16),
        guide=guide,
    )
    fit = pv.fit(vae.model, vae.guide, data, epochs=4, lr=3e-3, compile=False)
    gaps = pv.gaps(fit.model, fit.guide, data.test[:12], estimators=[pv.IS(500)], fit=QUICK, num_samples=400)
    for name, part in gaps.parts.items():
        assert part.mean > -4 * part.se_mc, name
    assert gaps.amortisation.mean > 4 * gaps.amortisation.se_mc, "four epochs leave something to amortise"
    assert gaps.evidence.direction == "<=" and any("lower bound" in w for w in gaps.warnings)
    assert gaps.evidence.log_evidence == max(e.log_evidence for e in gaps.bounds)


# Families ----------------------------------------------------------------------------------------


def one_latent(q, prior=None):
    """x ~ N(z, 1) with a guide of any family."""
    prior = dist.Normal(torch.zeros((), dtype=F64), 1.0) if prior is None else prior

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", q(x))

    return model, guide


POSITIVE = dist.Gamma(torch.tensor(2.0, dtype=F64), 1.0)
UNIT = dist.Beta(torch.tensor(2.0, dtype=F64), 3.0)
FAMILIES = {
    "Laplace": (lambda x: dist.Laplace(0.4 * x, 0.9), None),
    "StudentT": (lambda x: dist.StudentT(6.0, 0.1 * x, 0.4), None),
    "LogNormal": (lambda x: dist.LogNormal(0.2 * x, 0.8), POSITIVE),
    "Gamma": (lambda x: dist.Gamma(2.0 + 0 * x, 1.5), POSITIVE),
    "Beta": (lambda x: dist.Beta(2.0 + 0 * x, 2.0), UNIT),
    "transformed": (
        lambda x: dist.TransformedDistribution(dist.Normal(0.3 * x, 0.9), [transforms.SigmoidTransform()]),
        UNIT,
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_every_support(name):
    """The family's best member is better than the guide, and no better than the evidence by quadrature."""
    q, prior = FAMILIES[name]
    x = torch.tensor([-0.5, 0.3, 1.6], dtype=F64)
    fit = pv.LocalFit(steps=300, num_particles=16, lr=0.05)
    gaps = pv.gaps(*one_latent(q, prior), x, estimators=[pv.Exact()], fit=fit, num_samples=4000)
    assert gaps.amortisation.mean > 4 * gaps.amortisation.se_mc
    for part in (gaps.approximation, gaps.rest):
        assert (part.per_datum > -5 * part.variance.sqrt() - 1e-6).all()
    assert gaps.rest.mean < 0.04, "the flow fits a one-dimensional posterior"


def test_conditional_sites_keep_their_dependence():
    """A two-level guide that is the posterior but for a shift: offsets mend it, and it is said what they are."""
    case = hw.CASES["two latents"]()
    gaps = pv.gaps(case.model, case.wrong, *case.args, estimators=[pv.IS(500)], fit=QUICK, num_samples=1000)
    assert gaps.conditional == ("z2",) and any("stays amortised" in w for w in gaps.warnings)
    near(gaps.approximation, 0.0, 0.01)
    assert gaps.amortisation.mean > 0.1


def mixture(x):
    mix = dist.Categorical(torch.ones(len(x), 2, dtype=F64))
    return dist.MixtureSameFamily(mix, dist.Normal(x[:, None] + torch.tensor([-1.0, 1.0], dtype=F64), 1.0))


REFUSED = {
    "MixtureSameFamily": mixture,
    "Uniform": lambda x: dist.Uniform(x - 5, x + 5),
    "TransformedDistribution": lambda x: dist.TransformedDistribution(
        dist.Normal(0 * x, 1.0), [transforms.AffineTransform(x, 1.0)]
    ),
    "Chi2": lambda x: dist.Chi2(x.abs() + 1).has_rsample_(False),
}


@pytest.mark.parametrize("family", REFUSED)
def test_families_without_known_parameters_are_named(family):
    prior = POSITIVE if family == "Chi2" else None
    with pytest.raises(
        ValueError, match=f"expected a guide whose families.*got {family} at 'z'.*try a Gaussian"
    ):
        pv.gaps(*one_latent(REFUSED[family], prior), torch.ones(3, dtype=F64))


def test_programs_that_have_no_gaps():
    from pyrovae.models import ground_truths as gt

    truth = gt.discrete(4)
    with pytest.raises(ValueError, match="pathwise gradients"):
        pv.gaps(truth.model, truth.guide, truth.x)
    case = hw.CASES["fixed shape"]()
    with pytest.raises(ValueError, match="broadcasts over a particle plate"):
        pv.gaps(case.model, case.wrong, *case.args)
    for bad in ({"steps": 0}, {"num_particles": 1}, {"lr": 0.0}, {"lr": math.inf}):
        with pytest.raises(ValueError, match="expected steps >= 1"):
            pv.LocalFit(**bad)
    model, guide, x, _ = linear(2)
    with pytest.raises(ValueError, match="num_samples"):
        pv.gaps(model, guide, x, num_samples=0)


def test_the_richer_family_has_the_density_it_says():
    """ln q(u) against the Jacobian of the map from noise to u."""
    random = torch.Generator().manual_seed(0)
    flow = LocalFlow(torch.randn(50, 2, 3, generator=random, dtype=F64))
    with torch.no_grad():
        for leaf in flow.leaves:
            leaf.add_(0.3 * torch.randn(leaf.shape, generator=random, dtype=F64))
    noise = torch.randn(1, 2, 3, generator=random, dtype=F64)
    u, log_q = flow.at(noise, flow.leaves, flow.own)
    jacobian = torch.autograd.functional.jacobian(lambda e: flow.at(e, flow.leaves, flow.own)[0], noise)
    for n in range(2):
        log_p = dist.Normal(0.0, 1.0).log_prob(noise[0, n]).sum()
        expected = log_p - torch.linalg.slogdet(jacobian[0, n, :, 0, n]).logabsdet
        torch.testing.assert_close(log_q[0, n], expected, rtol=1e-9, atol=1e-9)
    assert u.shape == (1, 2, 3)
    with pytest.raises(ValueError, match="512 latent dims"):
        LocalFlow(torch.zeros(2, 1, 513))


class Linear(torch.nn.Module):
    """x ~ N(W z, 0.5) under a guide that is off its mark."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(W.clone())
        self.register_buffer("scale", torch.tensor(math.sqrt(NOISE), dtype=F64))

    def model(self, x):
        pyro.module("pair", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.weight.T, self.scale).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("pair", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ self.weight, self.scale).to_event(1))


@pytest.mark.slow
def test_compiled_steps_are_the_eager_ones(monkeypatch):
    """One graph serves all chunks, on the noise of an eager run; the short last chunk runs eagerly."""
    pair, x = Linear(), linear(10)[2]
    model, guide = pair.model, pair.guide
    rows, bound = [], []
    monkeypatch.setattr(own_guides, "_rows", lambda *_: 4)
    bind = CompiledGradients.bind

    def watch(self, indices, *rest):
        rows.append(len(indices))
        bound.append(bind(self, indices, *rest))
        return bound[-1]

    monkeypatch.setattr(CompiledGradients, "bind", watch)
    fit = pv.LocalFit(steps=30, num_particles=4)
    options = {"estimators": [pv.IS(50)], "fit": fit, "num_samples": 50}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled = pv.gaps(model, guide, x, compile=True, **options)
    assert (
        rows == [4, 4, 4, 4] and None not in bound
    )  # own and flow of two chunks; the last two data run eagerly
    eager = pv.gaps(model, guide, x, compile=False, **options)
    for name in ("elbo_local", "elbo_flow"):
        a, b = (getattr(g, name).per_datum for g in (compiled, eager))
        torch.testing.assert_close(a, b, rtol=0, atol=1e-8)
    assert (eager.elbo_local.per_datum - eager.elbo.per_datum).mean() > 0.1


def test_what_cannot_be_compiled_runs_eagerly_and_says_so():
    case = hw.CASES["x[ind], all"]()
    fit = pv.LocalFit(steps=2, num_particles=2)
    with pytest.warns(UserWarning, match="runs eagerly: it takes its data whole"):
        pv.gaps(case.model, case.wrong, *case.args, fit=fit, num_samples=10, compile=True, **case.options)


def test_a_datum_for_which_it_does_not_help_keeps_its_guide():
    """Wild steps spoil the exact guide; the check on fresh draws puts it back."""
    model, guide, x, _ = linear(6)
    fit = pv.LocalFit(steps=2, num_particles=2, lr=5.0)
    gaps = pv.gaps(model, guide, x, estimators=[pv.IS(10)], fit=fit, num_samples=50, flow=False)
    assert gaps.attributes["kept"] == 6
    torch.testing.assert_close(gaps.elbo_local.per_datum, gaps.elbo.per_datum, rtol=0, atol=1e-9)


def test_table_plot_and_progress():
    model, guide, x, _ = linear(4, shift=0.3)
    seen = []
    fit = pv.LocalFit(steps=5, num_particles=4)
    gaps = pv.gaps(
        model, guide, x, fit=fit, num_samples=20, label="toy, test", progress=lambda d, t: seen.append((d, t))
    )
    steps = [(done, total) for done, total in seen if total == 10]  # after the log-weights
    assert steps == [(i, 10) for i in range(1, 11)] and seen[-10:] == steps
    for style in ("terminal", "markdown"):
        text = gaps.table(style)
        assert "toy, test" in text and "amortisation" in text and "approximation" in text
    with pytest.raises(ValueError, match="style"):
        gaps.table("html")
    again = pv.gaps(model, guide, x, fit=fit, num_samples=20)
    assert again.amortisation.per_datum.equal(gaps.amortisation.per_datum)
    widths = [value for value, _ in gaps.bar().values()]
    assert sum(widths) == pytest.approx(gaps.total.mean)
    assert gaps.plot().get_xlabel().startswith("ln p(x)")


@pytest.mark.filterwarnings("error:.*eagerly")
@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
def test_chunks_are_units_shared_and_resumed_to_the_same_numbers(tmp_path, monkeypatch, interpreted, compile):
    """Interrupted, gone on with, and read by another process: no chunk twice, the numbers of an undisturbed run."""
    monkeypatch.setattr(own_guides, "_rows", lambda *_: 3)
    pair, x = Linear(), linear(11)[2]
    model, guide = pair.model, pair.guide
    given = {"fit": pv.LocalFit(steps=20, num_particles=4), "num_samples": 40, "estimators": [pv.IS(30)]}
    given |= {"compile": compile}
    whole = pv.gaps(model, guide, x, **given)
    taken = []
    optimise = own_guides._optimise

    def dying(*args):
        taken.append(args[4])
        if len(taken) == 2:
            raise KeyboardInterrupt
        return optimise(*args)

    monkeypatch.setattr(own_guides, "_optimise", dying)
    with pytest.raises(KeyboardInterrupt):
        pv.gaps(model, guide, x, **given, resume=tmp_path)
    assert taken == [0, 1]
    sharing = Sharing(poll=0.02)
    found = pv.gaps(model, guide, x, **given, resume=tmp_path, sharing=sharing)
    again = pv.gaps(model, guide, x, **given, resume=tmp_path, sharing=sharing)
    assert taken == [0, 1, 1, 2, 3]
    for other in (found, again):
        assert other.attributes["kept"] == whole.attributes["kept"]
        for name, part in whole.parts.items():
            assert torch.equal(other.parts[name].per_datum, part.per_datum), name
            assert torch.equal(other.parts[name].variance, part.variance), name
    last = next(p for p in tmp_path.glob("*own-guides-000003*"))
    last.unlink()  # the short chunk alone: a process that gets only this one gives the same numbers
    only = pv.gaps(model, guide, x, **given, resume=tmp_path)
    assert taken[5:] == [3]
    for name, part in whole.parts.items():
        assert torch.equal(only.parts[name].per_datum, part.per_datum), name
