"""AIS against exact evidence: unbiased for p, a lower bound after the log, refusals."""

import math
import shutil

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evidence.chains import annealed_path as annealing
from pyrovae.evidence.chains import tuned_chunks as tuned
from pyrovae.evidence.chains.annealed_path import anneal, power_schedule
from pyrovae.evidence.core.execution import Execution
from pyrovae.models.linear_gaussian import LinearGaussian
from pyrovae.programs import inspect_program, seeded
from pyrovae.programs.memory import bytes_per_pair

from . import handwritten as hw

F64 = torch.float64


def f(value):
    return torch.tensor(value, dtype=F64)


def gamma_poisson():
    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(f(2.0), f(0.5)))
            pyro.sample("x", dist.Poisson(rate), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.LogNormal((x + 1).log(), f(0.8)))

    x = f([0.0, 1.0, 4.0, 9.0])
    return model, guide, x, dist.GammaPoisson(f(2.0), f(0.5)).log_prob(x)


def beta_binomial():
    def model(x):
        with pyro.plate("data", len(x)):
            p = pyro.sample("p", dist.Beta(f(2.0), f(3.0)))
            pyro.sample("x", dist.Binomial(10, p), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("p", dist.Beta(1.5 + 0.5 * x, 6.5 - 0.5 * x))

    x = f([0.0, 3.0, 10.0])
    return model, guide, x, dist.BetaBinomial(f(2.0), f(3.0), 10).log_prob(x)


def dirichlet_multinomial():
    """A simplex: event dims that the transform changes."""
    concentration = f([1.5, 2.0, 3.0])

    def model(x):
        with pyro.plate("data", len(x)):
            p = pyro.sample("p", dist.Dirichlet(concentration))
            pyro.sample("x", dist.Multinomial(8, p), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("p", dist.Dirichlet(1 + 0.5 * x))

    x = f([[8.0, 0.0, 0.0], [2.0, 3.0, 3.0], [0.0, 1.0, 7.0]])
    return model, guide, x, dist.DirichletMultinomial(concentration, 8).log_prob(x)


def support_upstream():
    """z2 ~ Uniform(0, z1), z1 ~ Gamma(2, r): z2 is exponential, and p(x) = r / (1 + r)^(x + 1)."""

    def model(x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Gamma(f(2.0), f(0.7)))
            z2 = pyro.sample("z2", dist.Uniform(f(0.0), z1))
            pyro.sample("x", dist.Poisson(z2), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            z1 = pyro.sample("z1", dist.Gamma(2.0 + 0.5 * x, f(0.6)))
            pyro.sample("z2", dist.Uniform(f(0.0), z1))

    x = f([0.0, 1.0, 3.0, 7.0])
    return model, guide, x, math.log(0.7) - (x + 1) * math.log(1.7)


def multimodal():
    """Mixture prior, linear decoder from two latents to one dim: two separate modes."""
    weights, centres = f([0.3, 0.7]), f([[-2.0, 1.0], [2.0, -1.0]])
    w, noise = f([[0.5, 1.0]]), 0.4

    def model(x):
        prior = dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(centres, f(0.6)).to_event(1))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(z @ w.T, f(noise)).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(2, dtype=F64), f(2.5)).to_event(1))

    x = f([[0.1], [0.9], [-0.7]])
    sd = (0.36 * w.square().sum() + noise**2).sqrt()
    parts = dist.Normal((centres @ w.T).squeeze(-1), sd).log_prob(x)
    return model, guide, x, (parts + weights.log()).logsumexp(-1)


def from_cases(name):
    def make():
        case = hw.CASES[name]()
        return case.model, case.wrong, case.args[0], case.log_evidence, *case.args[1:]

    return make


TRUTHS = {
    "linear-Gaussian": from_cases("plain"),
    "two latents": from_cases("two latents"),
    "scale": from_cases("poutine.scale"),
    "mask": from_cases("mask of dims"),
    "inner plate": from_cases("inner plate"),
    "Gamma-Poisson": gamma_poisson,
    "Beta-Binomial": beta_binomial,
    "Dirichlet-Multinomial": dirichlet_multinomial,
    "support upstream": support_upstream,
    "multimodal": multimodal,
}


@pytest.mark.parametrize("start", ["prior", "guide"])
@pytest.mark.parametrize("name", TRUTHS)
def test_weights_are_unbiased_for_p(name, start):
    """E[w] / p(x) = 1 over many chains, per datum; steps and temperatures frozen beforehand."""
    model, guide, x, exact, *context = TRUTHS[name]()
    ais = pv.AIS(6, 400, start, leapfrog=2)
    program = inspect_program(model, guide, x, *context)
    ratios = []
    for chunk in tuned.chunks(program, ais, Execution(3, 2**40)):
        with seeded(3, "test", chunk.number):
            run = anneal(chunk.evaluate, chunk.start(), chunk.betas(6), chunk.tuning.steps, 2)
        truth = exact[chunk.indices].detach()
        ratios.append((run.log_weights - truth).exp()[:, : chunk.num_data])
    w = torch.cat(ratios, 1)
    assert w.shape == (400, len(x)) and torch.isfinite(w).all()
    assert run.acceptance.mean() > 0.3
    # A datum that is masked out has p = 1 and every weight 1.
    z = (w.mean(0) - 1) / w.std(0).clamp(min=1e-9) * math.sqrt(400)
    assert z.abs().max() < 4.5, z  # over data: 4.5 is 4 sigma for the largest of a handful
    assert (w.mean() - 1).abs() < 4 * w.mean(1).std().clamp(min=1e-9) / math.sqrt(400)


def linear(n=12):
    torch.manual_seed(1)
    m = LinearGaussian((torch.randn(5, 2) * 1.3).double(), noise=0.3)
    x = m.likelihood(torch.randn(n, 2, dtype=F64)).sample().detach()

    def wide(x):
        q = m.posterior(x)
        with pyro.plate("data", len(x)):
            covariance = 3.0 * q.covariance_matrix
            pyro.sample("z", dist.MultivariateNormal(q.loc + 0.4, covariance_matrix=covariance))

    return m, wide, x, m.log_evidence(x).detach()


def test_evidence_by_ais():
    m, wide, x, exact = linear()
    seen = []
    ev = pv.evidence(
        m.model,
        wide,
        x,
        estimators=[pv.IS(500), pv.AIS(30, 32, leapfrog=3), pv.AIS(30, 32, "prior", leapfrog=3)],
        progress=lambda done, total: seen.append(done / total),
    )
    assert list(ev) == ["IS", "AIS", "AIS (prior)"] and seen[-1] == 1.0
    for name in ("AIS", "AIS (prior)"):
        e = ev[name]
        assert e.direction == "<=" and e.num_samples == 32
        assert abs(e.log_evidence - exact.mean()) < 4 * e.se_mc + 0.02
        assert 0 < e.se_mc < 0.1
        # Three estimators are certified together.
        assert e.certificate == pytest.approx(e.log_evidence - math.log(3 * 20) / 12)
        assert e.details["acceptance"].shape == (12,) and (e.details["acceptance"] > 0.5).all()
        assert (e.details["acceptance_worst_chain"] <= e.details["acceptance"]).all()
        integral = e.details["thermodynamic_integration"]
        assert (integral - exact).mean().abs() < 0.3
    # Moves buy what draws alone do not: ESS per chain far above that of importance sampling.
    assert ev["AIS"].ess.mean() / 32 > 2 * ev["IS"].ess.mean() / 500


def test_an_exact_guide_gives_weights_without_variance():
    m, _, x, exact = linear()
    e = pv.evidence(m.model, m.guide, x, estimators=[pv.AIS(5, 4, leapfrog=2)])["AIS"]
    torch.testing.assert_close(e.per_datum, exact, rtol=1e-12, atol=1e-12)
    assert e.variance.max() < 1e-12


def test_two_temperatures_are_importance_sampling():
    m, wide, x, _ = linear()
    program = inspect_program(m.model, wide, x)
    chunk = next(tuned.chunks(program, pv.AIS(2, 50), Execution(0, 2**40)))
    with seeded(7, "test"):
        run = anneal(chunk.evaluate, chunk.start(), chunk.betas(2), chunk.tuning.steps, 8)
    with seeded(7, "test"), torch.no_grad():
        weights = program.run(chunk.indices, 50).log_weights()
    torch.testing.assert_close(run.log_weights, weights)


def test_more_temperatures_tighten_the_bound():
    m, wide, x, exact = linear(200)
    gaps = []
    for t in (3, 30):
        e = pv.evidence(m.model, wide, x, estimators=[pv.AIS(t, 4, "prior", leapfrog=3)])["AIS (prior)"]
        gaps.append(exact - e.per_datum)
    for gap in gaps:
        assert gap.mean() > -4 * gap.std() / math.sqrt(200)
    gained = gaps[0] - gaps[1]
    assert gained.mean() > 4 * gained.std() / math.sqrt(200)


def test_results_do_not_depend_on_what_ran_before():
    m, wide, x, _ = linear()
    ais = pv.AIS(6, 4, leapfrog=2)
    program = inspect_program(m.model, wide, x)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = ais.run(program, Execution(4)).log_evidence
    assert torch.equal(torch.get_rng_state(), before)
    torch.randn(17)
    assert torch.equal(ais.run(program, Execution(4)).log_evidence, first)
    assert not torch.equal(ais.run(program, Execution(5)).log_evidence, first)


def test_chunks_of_data_by_budget():
    """Chunks of one size, the last one padded; every datum once and in its place."""
    m, wide, x, exact = linear(11)
    program = inspect_program(m.model, wide, x)
    ais = pv.AIS(15, 32, leapfrog=2)
    budget = 4 * tuned.BACKWARD * bytes_per_pair(program) * 32
    parts = list(tuned.chunks(program, ais, Execution(0, budget)))
    assert [len(c.indices) for c in parts] == [4, 4, 4] and [c.num_data for c in parts] == [4, 4, 3]
    result = ais.run(program, Execution(0, budget))
    assert ((result.log_evidence - exact).abs() < 5 * result.variance.sqrt() + 0.02).all()
    with pytest.raises(ValueError, match="at least one byte"):
        ais.run(program, Execution(0, -1))


def test_nothing_adapts_in_the_measured_run(monkeypatch):
    """The steps of the measured run are the same whatever its chains do (adapting there biases Z)."""
    m, wide, x, _ = linear(4)
    program = inspect_program(m.model, wide, x)
    chunk = next(tuned.chunks(program, pv.AIS(8, 6), Execution(0, 2**40)))
    frozen = [t.clone() for t in (chunk.tuning.log_step, chunk.tuning.log_scale, chunk.tuning.betas)]
    steps = []

    def spy(evaluate, point, beta, step, num_steps):
        steps[-1].append((beta, step))
        return original(evaluate, point, beta, step, num_steps)

    original = annealing.move
    monkeypatch.setattr(annealing, "move", spy)
    for seed in (1, 2):
        steps.append([])
        with seeded(seed, "test"):
            anneal(chunk.evaluate, chunk.start(), chunk.betas(8), chunk.tuning.steps, 3)
    assert len(steps[0]) == 6
    for (b1, s1), (b2, s2) in zip(*steps, strict=True):
        assert b1 == b2 and torch.equal(s1, s2)
    now = (chunk.tuning.log_step, chunk.tuning.log_scale, chunk.tuning.betas)
    assert all(torch.equal(a, b) for a, b in zip(frozen, now, strict=True))


def test_a_guide_off_the_support_loses_weight_and_nothing_else():
    """Draws outside of the prior's support: weight zero, E[w] = p(x) all the same."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Gamma(f(2.0), f(1.0)))
            pyro.sample("x", dist.Poisson(z), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(1.0 + 0.5 * x, f(1.5)))

    x = f([0.0, 2.0])
    with pyro.validation_enabled(False):
        program = inspect_program(model, guide, x, vectorised=True)
        result = pv.AIS(8, 2000, leapfrog=2).run(program, Execution(0))
    exact = dist.GammaPoisson(f(2.0), f(1.0)).log_prob(x)
    assert (result.ess < 1900).all()
    assert ((result.log_evidence - exact).abs() < 4 * result.variance.sqrt()).all()


def test_a_narrow_guide_is_mended_by_moves_or_shown():
    """Where IS falls short by whole nats, chains from the guide spread out."""
    m, _, x, exact = linear(20)

    def narrow(x):
        q = m.posterior(x)
        with pyro.plate("data", len(x)):
            covariance = 0.05 * q.covariance_matrix
            pyro.sample("z", dist.MultivariateNormal(q.loc + 0.5, covariance_matrix=covariance))

    ev = pv.evidence(m.model, narrow, x, estimators=[pv.IS(32), pv.AIS(60, 32, leapfrog=4)])
    gap = {name: (exact - e.per_datum).mean().item() for name, e in ev.items()}
    assert gap["IS"] > 1 and -0.2 < gap["AIS"] < gap["IS"] / 3


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler")
def test_compiled_gives_the_same_estimates():
    m, wide, x, _ = linear(5)
    program = inspect_program(m.model, wide, x)
    ais = pv.AIS(6, 5, leapfrog=2)
    torch.testing.assert_close(
        ais.run(program, Execution(0, compile=True)).log_evidence,
        ais.run(program, Execution(0)).log_evidence,
        rtol=1e-8,
        atol=1e-8,
    )


def test_what_cannot_be_compiled_runs_eagerly():
    case = hw.CASES["fixed plate"]()
    program = inspect_program(case.model, case.wrong, *case.args)
    with pytest.warns(UserWarning, match="runs eagerly"):
        result = pv.AIS(8, 64, leapfrog=2).run(program, Execution(0, compile=True))
    assert ((result.log_evidence - case.log_evidence).abs() < 5 * result.variance.sqrt() + 0.02).all()


def test_own_schedule():
    m, wide, x, exact = linear(6)
    ais = pv.AIS(10, 64, leapfrog=2, schedule=power_schedule(10, 2.0))
    assert ais.schedule == tuple(power_schedule(10, 2.0).tolist())
    e = pv.evidence(m.model, wide, x, estimators=[ais])["AIS"]
    assert (e.per_datum - exact).mean().abs() < 4 * e.se_mc + 0.02


def test_one_chain():
    m, wide, x, _ = linear(3)
    e = pv.evidence(m.model, wide, x, estimators=[pv.AIS(5, 1, leapfrog=2)])["AIS"]
    assert torch.isfinite(e.per_datum).all() and torch.isnan(e.variance).all()
    assert not e.reliable.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_temperatures": 1}, r"num_temperatures to be a whole number >= 2"),
        ({"num_temperatures": 2.5}, "num_temperatures"),
        ({"num_chains": 0}, "num_chains to be a whole number >= 1"),
        ({"leapfrog": 0}, "leapfrog"),
        ({"start": "posterior"}, "'prior' or 'guide'"),
        ({"target_acceptance": 1.0}, "target_acceptance"),
        ({"num_temperatures": 3, "schedule": (0.0, 0.9, 0.4)}, "rises from 0 to 1"),
        ({"num_temperatures": 4, "schedule": (0.0, 0.5, 1.0)}, "num_temperatures = 4"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        pv.AIS(**options)


def test_surrogate_densities_are_refused():
    def factored(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(f(0.0), f(1.0)))
            pyro.factor("loss", -z.square())
            pyro.sample("x", dist.Normal(z, f(1.0)), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, f(1.0)))

    x = f([0.0, 1.0])
    for model, message in (
        (factored, "undeclared"),
        (pv.program(density="bound_only")(lambda x: factored(x)), "bound_only"),
    ):
        with pytest.raises(ValueError, match=message):
            pv.evidence(model, guide, x, estimators=[pv.AIS(3, 4)])
    unnormalised = pv.program(density="unnormalised")(lambda x: factored(x))
    e = pv.evidence(unnormalised, guide, x, estimators=[pv.AIS(6, 64, leapfrog=2)])["AIS"]
    assert e.direction == "none" and e.certificate is None
    # z^2 as a factor: precision 1 + 2 before x, so ln of N(0, 1) x exp(-z^2) x N(x; z, 1) integrates to
    exact = -0.5 * math.log(2 * math.pi) - 0.5 * math.log(4) - 0.5 * x.square() * (1 - 1 / 4)
    assert ((e.per_datum - exact).abs() < 5 * e.variance.sqrt() + 0.01).all()


def test_auxiliary_guides_can_start_from_the_prior():
    case = hw.CASES["auxiliary guide site"]()
    program = inspect_program(case.model, case.wrong, *case.args)
    result = pv.AIS(20, 64, "prior", leapfrog=3).run(program, Execution(0))
    assert ((result.log_evidence - case.log_evidence).abs() < 5 * result.variance.sqrt() + 0.02).all()


def test_thermodynamic_integration_is_of_weighted_chains():
    """A fast path leaves its chains behind: unweighted, their slopes are those of higher temperatures."""
    noise, x = 0.3, torch.tensor([2.0, -1.0], dtype=torch.float64)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=torch.float64), 1.0))
            pyro.sample("x", dist.Normal(z, noise), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    path = pv.AIS(9, 3000, start="prior", leapfrog=1, schedule=power_schedule(9, 3.0))
    e = pv.evidence(model, guide, x, estimators=[path])["AIS (prior)"]
    betas = torch.tensor(path.schedule, dtype=torch.float64).unsqueeze(-1)
    # <ln p(x|z)> under N(m, v), the posterior at each temperature, by hand.
    v = 1 / (1 + betas / noise**2)
    m = v * betas * x / noise**2
    slopes = -0.5 * math.log(2 * math.pi * noise**2) - ((x - m).square() + v) / (2 * noise**2)
    exact = torch.trapezoid(slopes, betas.squeeze(-1), dim=0)
    assert (e.details["thermodynamic_integration"] - exact).abs().max() < 0.15


def test_masked_latents_of_other_data_do_not_change_the_steps():
    """A latent that is masked walks as far as it is let; its variance was taken for that of all data: ESS 29 -> 14."""
    x = torch.linspace(-2, 2, 10).double().unsqueeze(-1) * torch.tensor([1.0, 0.5, 0.8, 0.2]).double()

    def model(x, lengths):
        with pyro.plate("data", len(x)):
            z = x.new_zeros(())
            for t in range(x.shape[1]):
                with pyro.poutine.mask(mask=t < lengths):
                    z = pyro.sample(f"z{t}", dist.Normal(0.9 * z, 0.5 if t else 1.0))
                    pyro.sample(f"x{t}", dist.Normal(z, 0.4), obs=x[:, t])

    def guide(x, lengths):
        with pyro.plate("data", len(x)):
            for t in range(x.shape[1]):
                with pyro.poutine.mask(mask=t < lengths):
                    pyro.sample(f"z{t}", dist.Normal(0.75 * x[:, t], 0.4))

    ess = []
    for lengths in ([4] * 20, [4] * 10 + [1] * 10):
        given = pv.per_datum(torch.tensor(lengths))
        e = pv.evidence(model, guide, x.repeat(2, 1), given, estimators=[pv.AIS(40, 32)])["AIS"]
        assert float(e.details["acceptance"][:10].min()) > 0.9
        ess.append(float(e.ess[:10].mean()))
    assert ess[1] > 0.9 * ess[0]
