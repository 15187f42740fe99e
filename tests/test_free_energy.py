"""Free energies at any temperature, thermodynamic integration, work and Crooks, against exact answers."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae import plots
from pyrovae.evidence.bounds.work import WorkDistributions
from pyrovae.evidence.weights.moments import entropy_of_weights, weighted_moments
from pyrovae.models import ground_truths as gt
from pyrovae.programs import ParameterStore

from . import handwritten as hw

F64 = torch.float64
N, T = 8, (0.5, 1.0, 2.0)
kl_divergence = torch.distributions.kl_divergence


def guide_log_prob(truth, values):
    """ln q of given values, `[..., N]`, summed over sites."""
    trace = pyro.poutine.trace(pyro.poutine.condition(truth.guide, values)).get_trace(truth.x)
    return sum(trace.nodes[n]["fn"].log_prob(v) for n, v in values.items())


def joint_log_prob(truth, values):
    trace = pyro.poutine.trace(pyro.poutine.condition(truth.model, values)).get_trace(truth.x)
    return sum(trace.nodes[n]["fn"].log_prob(trace.nodes[n]["value"]) for n in [*values, "x"])


def gaussian(width, dim):
    """q is the posterior with its covariance times width^2, p_T with its own times T."""

    def kl(truth, t):
        ratio = width**2 / t
        return torch.full((N,), 0.5 * dim * (ratio - 1 - math.log(ratio)), dtype=F64)

    return kl


def on_a_grid(truth, t):
    """Of one or two real latents, by the trapezoidal rule in z."""
    dim = 2 if truth.name[-13] == "2" or "mixture" in truth.name else 1
    axis = torch.linspace(-12, 12, 6001 if dim == 1 else 321, dtype=F64)
    z = torch.cartesian_prod(*[axis] * dim).reshape(-1, 1, dim)
    z = z.expand(-1, N, dim)
    joint = torch.cat([joint_log_prob(truth, {"z": part}) for part in z.split(20_000)]) / t
    log_q = torch.cat([guide_log_prob(truth, {"z": part}) for part in z.split(20_000)])
    log_p = joint - joint.logsumexp(0) - dim * math.log(axis[1] - axis[0])
    return (log_q.exp() * (log_q - log_p)).sum(0) * (axis[1] - axis[0]) ** dim


def gammas(truth, t):
    x = truth.x
    q = torch.distributions.Gamma(2.0 + x + 0.5, torch.tensor(1.6, dtype=F64))
    return kl_divergence(q, torch.distributions.Gamma((1.0 + x) / t + 1, torch.tensor(1.5 / t, dtype=F64)))


def betas(truth, t):
    x, share = truth.x, 11 / 12
    q = torch.distributions.Beta(2 + share * x, 3 + share * (12 - x))
    return kl_divergence(q, torch.distributions.Beta((1 + x) / t + 1, (2 + 12 - x) / t + 1))


def states(truth, t):
    every = [{"c": torch.full((N,), c), "s": torch.full((N,), s)} for c in range(3) for s in range(3)]
    log_q = torch.stack([guide_log_prob(truth, v) for v in every])
    log_p = torch.stack([joint_log_prob(truth, v) for v in every]).div(t).log_softmax(0)
    return (log_q.exp() * (log_q - log_p)).sum(0)


# Every exact program, with KL(q ‖ p_T) by means of its own.
KL = [
    (gt.linear_gaussian, (N,), gaussian(1.2, 3)),
    (gt.hierarchical_linear_gaussian, (2, N), gaussian(1.15, 4)),
    (gt.hierarchical_linear_gaussian, (4, N), gaussian(1.15, 8)),
    (gt.mixture_prior, (N,), on_a_grid),
    (gt.discrete, (N,), states),
    (gt.gamma_poisson, (N,), gammas),
    (gt.beta_binomial, (N,), betas),
    (gt.nonlinear, (1, N), on_a_grid),
    (gt.nonlinear, (2, N), on_a_grid),
    (gt.psis_tail, (0.8, N), gaussian(0.8, 1)),
]
NAMES = [f"{make.__name__}-{args[0]}" for make, args, _ in KL]


@pytest.mark.parametrize(("make", "args", "kl"), KL, ids=NAMES)
def test_gap_is_t_times_kl_on_every_exact_program(make, args, kl):
    truth = make(*args)
    exact = torch.stack([t * kl(truth, t) for t in T])
    free = pv.thermodynamics.free_energy(
        truth.model, truth.guide, truth.x, estimator=pv.Exact(), num_samples=2000
    )
    assert free.direction == free.gap_direction == "~"
    torch.testing.assert_close(free.helmholtz[1], -truth.log_evidence.double(), rtol=1e-8, atol=1e-8)
    mean, _, se = free.mean("gap")
    assert ((mean - exact.mean(1)).abs() < 4 * se).all() and (se < 0.05).all()
    # By importance: the average of e^{-F_p / T} is right, where its variance is finite.
    weighed = pv.thermodynamics.free_energy(truth.model, truth.guide, truth.x, num_samples=2000)
    assert weighed.direction == ">=" and weighed.gap_direction == "<=" and (weighed.gap >= -1e-9).all()
    torch.testing.assert_close(weighed.variational, free.variational)
    t = free.temperatures.unsqueeze(-1)
    ratio = ((free.helmholtz - weighed.helmholtz) / t).exp()
    error = (ratio.square() * weighed.variances["helmholtz"] / t.square()).sum(1).sqrt() / N
    tame = (weighed.khat < 0.5).all(1) | torch.tensor("discrete" in truth.name)
    assert ((ratio.mean(1) - 1).abs() < 4 * error)[tame].all() and tame[0]
    mean, _, se = weighed.mean("gap")
    assert ((mean - exact.mean(1)).abs() < 4 * se + 2 * weighed.bias.mean(1).abs())[tame].all()


@pytest.mark.parametrize(
    ("make", "start"),
    [(gt.linear_gaussian, "guide"), (gt.gamma_poisson, "prior"), (gt.beta_binomial, "guide")],
)
def test_annealing_reaches_every_temperature(make, start):
    """Constrained latents too: the power is of the density of z, not of that of its unconstrained form."""
    truth = make(N)
    exact = pv.thermodynamics.free_energy(
        truth.model, truth.guide, truth.x, estimator=pv.Exact(), num_samples=500
    )
    ais = pv.AIS(16, 32, start, 3)
    free = pv.thermodynamics.free_energy(truth.model, truth.guide, truth.x, estimator=ais, num_samples=500)
    t = free.temperatures.unsqueeze(-1)
    ratio = ((exact.helmholtz - free.helmholtz) / t).exp()
    error = (ratio.square() * free.variances["helmholtz"] / t.square()).sum(1).sqrt() / N
    assert ((ratio.mean(1) - 1).abs() < 4.5 * error).all() and (error < 0.15).all()
    assert free.direction == ">=" and "AIS" in free.estimator


def test_gaussian_energy_entropy_and_heat_capacity():
    """p_T of D quadratic coordinates: <E> = E_0 + D T / 2, C = D / 2."""
    truth = gt.linear_gaussian(N)
    free = pv.thermodynamics.free_energy(
        truth.model, truth.guide, truth.x, temperatures=(0.8, 1.0, 1.25), num_samples=8000
    )
    assert (free.heat_capacity.mean(1) - 1.5).abs().max() < 0.15
    assert (free.equilibrium_energy.diff(dim=0).mean(1) / free.temperatures.diff() - 1.5).abs().max() < 0.15
    # dF_p/dT = -S_p = (F_p - <E>) / T
    slope = free.helmholtz.diff(dim=0) / free.temperatures.diff().unsqueeze(-1)
    entropy = (free.equilibrium_energy - free.helmholtz) / free.temperatures.unsqueeze(-1)
    torch.testing.assert_close(free.equilibrium_entropy, entropy)
    # p_T is Gaussian, of covariance T / precision.
    of_p = [
        dist.MultivariateNormal(torch.zeros(3, dtype=F64), t * torch.linalg.inv(_precision(truth))).entropy()
        for t in free.temperatures
    ]
    mean, _, se = free.mean("equilibrium_entropy")
    assert ((mean - torch.stack(of_p)).abs() < 4 * se + 1e-3).all() and (se < 0.02).all()
    assert "⟨E⟩_p" in free.table() and free.table("markdown").splitlines()[2].count("|") == 9
    assert (slope + 0.5 * (entropy[1:] + entropy[:-1])).mean(1).abs().max() < 0.05
    covariance = 1.2**2 * torch.linalg.inv(_precision(truth))
    exact = dist.MultivariateNormal(torch.zeros(3, dtype=F64), covariance).entropy()
    assert (free.entropy.mean() - exact).abs() < 4 * free.mean("entropy")[2]


def _precision(truth):
    u = torch.zeros(1, 3, dtype=F64).expand(N, 3)
    hessian = torch.autograd.functional.hessian(
        lambda z: -joint_log_prob(truth, {"z": z.expand(N, 3)})[0], u[0].clone()
    )
    return hessian


@pytest.mark.parametrize(
    "name",
    ["plain", "x[ind], size fixed", "poutine.scale", "auxiliary guide site", "fixed shape", "AutoNormal"],
)
def test_at_one_it_is_minus_the_elbo_and_minus_the_evidence(name):
    """Of the same draws, whatever the idiom; at the exact guide the gap is 0: equality is reached."""
    case = hw.CASES[name]()
    asked = {"temperatures": (1.0,), "num_samples": 20, **case.options}
    free = pv.thermodynamics.free_energy(case.model, case.wrong, *case.args, **asked)
    ev = pv.evidence(case.model, case.wrong, *case.args, estimators=[pv.ELBO(20), pv.IS(20)], **case.options)
    torch.testing.assert_close(free.variational[0], -ev["ELBO"].per_datum, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(free.helmholtz[0], -ev["IS"].per_datum, rtol=1e-9, atol=1e-9)
    assert free.gap.mean() > 0.01
    exact = pv.thermodynamics.free_energy(case.model, case.exact, *case.args, **asked)
    assert exact.gap.abs().max() < 1e-9


def test_few_draws_and_single_weights_are_named():
    """Of two draws it printed a gap of .02 ± .002 where .95 is right, with a word on the bias alone."""
    truth = gt.psis_tail(0.8, N)
    few = pv.thermodynamics.free_energy(
        truth.model, truth.guide, truth.x, num_samples=2, temperatures=(1.0, 3.0)
    )
    assert any("K = 2 is too few" in w for w in few.warnings)
    assert any("at T = 3 one weight decides for" in w for w in few.warnings)
    many = pv.thermodynamics.free_energy(
        truth.model, truth.guide, truth.x, num_samples=400, temperatures=(1.0,)
    )
    assert not any("too few" in w or "decides" in w for w in many.warnings)


def test_result_table_and_plot(tmp_path):
    truth = gt.psis_tail(0.8, N)
    free = pv.thermodynamics.free_energy(
        truth.model, truth.guide, truth.x, num_samples=400, temperatures=(0.5, 1.0, 3.0)
    )
    assert any("overstates F_p" in w for w in free.warnings) and any("T = 3" in w for w in free.warnings)
    assert (
        free.table("markdown").count("≥") == 3 and "F_q" in free.table() and "F_q − F_p by IS" in repr(free)
    )
    torch.testing.assert_close(free.kl * free.temperatures.unsqueeze(-1), free.gap)
    with pytest.raises(ValueError, match="'terminal', 'markdown' or 'latex'"):
        free.table("html")
    with pytest.raises(ValueError, match="expected one of"):
        free.mean("kl")
    plots.save(free.plot(), tmp_path / "free.png")
    assert (tmp_path / "free.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("temperatures", "message"),
    [
        ((1.0, 0.5), "rise"),
        ((1.0, 1.0), "rise"),
        ((0.0, 1.0), "T = 0 at position 0"),
        ((-1.0, 1.0), "> 0"),
        ((1.0, math.nan), "> 0"),
        ((1.0, math.inf), "finite"),
        ((), "at least one"),
    ],
)
def test_bad_temperatures(temperatures, message):
    truth = gt.psis_tail(0.8, 2)
    with pytest.raises(ValueError, match=message):
        pv.thermodynamics.free_energy(truth.model, truth.guide, truth.x, temperatures=temperatures)
    with pytest.raises(ValueError, match="from 1" if len(temperatures) < 2 else f"{message}|rise"):
        pv.thermodynamics.tempered_likelihood(
            truth.model, truth.guide, truth.x, temperatures=(*temperatures, 7.0)
        )


def test_other_refusals():
    truth = gt.nonlinear(2, 4)
    with pytest.raises(ValueError, match=r"pv.IS, pv.AIS or pv.Exact"):
        pv.thermodynamics.free_energy(truth.model, truth.guide, truth.x, estimator=pv.ELBO())
    with pytest.raises(ValueError, match="whose draws serve both"):
        pv.thermodynamics.free_energy(truth.model, truth.guide, truth.x, estimator=pv.IS(10), num_samples=20)
    case = hw.CASES["enumerated in the model"]()
    with pytest.raises(ValueError, match="summed out in the model"):
        pv.thermodynamics.free_energy(case.model, case.wrong, *case.args)

    def quartic(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3, dtype=F64), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.square().sum(-1), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(torch.zeros(len(x), 3, dtype=F64), 1.0).to_event(1))

    with pytest.raises(ValueError, match="quadratic"):
        pv.thermodynamics.free_energy(quartic, guide, torch.ones(3, dtype=F64), estimator=pv.Exact())
    ais = {"ais": pv.AIS(3, 4, schedule=(0, 0.5, 1), start="prior")}
    with pytest.raises(ValueError, match="got both"):
        pv.thermodynamics.tempered_likelihood(
            quartic, guide, torch.ones(3, dtype=F64), temperatures=(1, math.inf), **ais
        )
    for start, chains, message in (("guide", 4, 'start="prior"'), ("prior", 1, "2 chains")):
        with pytest.raises(ValueError, match=message):
            pv.thermodynamics.tempered_likelihood(
                quartic, guide, torch.ones(3, dtype=F64), ais=pv.AIS(3, chains, start)
            )
    with pytest.raises(ValueError, match="moves"):
        pv.work_distributions(truth.model, truth.guide, truth.x, moves=-1)
    with pytest.raises(ValueError, match="2 chains"):
        pv.work_distributions(truth.model, truth.guide, truth.x, ais=pv.AIS(3, 1))


# The tempered likelihood --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tempered():
    truth = gt.linear_gaussian(N)
    with ParameterStore().active():
        ais = pv.AIS(30, 100, "prior", 3)
        return truth, pv.thermodynamics.tempered_likelihood(truth.model, truth.guide, truth.x, ais=ais)


def test_integration_is_ais_is_exact(tempered):
    truth, run = tempered
    exact = truth.log_evidence.mean()
    for name in ("integral", "log_normaliser"):
        mean, se = run.mean(name)
        assert (mean[-1] - exact).abs() < 4 * se[-1] + 0.05 and se[-1] < 0.1
    corrected = run.corrected_integration.mean()
    assert (corrected - exact).abs() < 4 * run.mean("integral")[1][-1]
    assert run.lower.mean() < run.thermodynamic_integration.mean() < run.upper.mean()
    assert "integration" in repr(run)
    # One chain of one datum tells nothing of the others: errors are as the estimates scatter.
    z = (run.log_evidence - truth.log_evidence) / run.variances["log_normaliser"][-1].sqrt()
    assert 0.3 < z.square().mean().sqrt() < 2.2


def test_energy_and_heat_capacity_in_closed_form(tempered):
    """pi_beta is Gaussian: with the spectrum of W' Psi^-1 W the moments of ln p(x|z) are known."""
    truth, run = tempered
    trace = pyro.poutine.trace(truth.model).get_trace(truth.x)
    noise = trace.nodes["x"]["fn"].base_dist.scale[0].square()
    eye = torch.eye(3, dtype=F64)
    at = torch.cat([torch.zeros(1, 3, dtype=F64), eye])
    means = torch.stack(
        [
            pyro.poutine.trace(pyro.poutine.condition(truth.model, {"z": z.expand(N, 3)}))
            .get_trace(truth.x)
            .nodes["x"]["fn"]
            .mean[0]
            for z in at
        ]
    )
    bias, weight = means[0], (means[1:] - means[0]).T
    energies, variances = [], []
    for beta in run.betas:
        s = torch.linalg.inv(eye + beta * weight.T @ (weight / noise.unsqueeze(-1)))
        mu = beta * ((truth.x - bias) / noise) @ weight @ s
        residual = truth.x - bias - mu @ weight.T
        a = weight / noise.sqrt().unsqueeze(-1)
        r = residual / noise.sqrt()
        spread = a @ s @ a.T
        energies.append(0.5 * (r.square().sum(-1) + spread.trace() + (2 * math.pi * noise).log().sum()))
        variances.append(0.5 * (spread @ spread).trace() + ((r @ spread) * r).sum(-1))
    exact, variance = torch.stack(energies), torch.stack(variances)
    mean, se = run.mean("energy")
    assert ((mean - exact.mean(1)).abs() < 4.5 * se).all()
    torch.testing.assert_close(run.heat_capacity, run.betas.square().unsqueeze(-1) * run.energy_variance)
    late = run.betas > 0.1
    capacity = run.betas.square() * variance.mean(1)
    assert (run.heat_capacity.mean(1) / capacity - 1)[late].abs().max() < 0.25
    assert run.heat_capacity[0].abs().max() == 0 and torch.isinf(run.temperatures[0])
    rate = -run.entropy.mean(1)
    assert rate[0].abs() < 1e-12 and rate[-1] > 1


def test_given_temperatures_are_the_schedule():
    truth = gt.psis_tail(0.8, 3)
    run = pv.thermodynamics.tempered_likelihood(
        truth.model, truth.guide, truth.x, temperatures=(1, 2, 8, math.inf), ais=pv.AIS(9, 4, "prior", 1)
    )
    assert run.betas.tolist() == [0, 0.125, 0.5, 1] and isinstance(run, pv.thermodynamics.TemperedLikelihood)
    # The likelihood does not look at z: every energy is ln p(x), and so is the integral.
    torch.testing.assert_close(run.thermodynamic_integration, truth.log_evidence)
    torch.testing.assert_close(run.lower, run.upper)


def test_plots_of_integration(tempered, tmp_path):
    truth, run = tempered
    ax = run.plot(exact=truth.log_evidence)
    assert "exact" in ax.get_title()
    plots.save(ax, tmp_path / "ti.png")


# Work ---------------------------------------------------------------------------------------------


def works(delta, num, seed=0, num_data=50):
    """Gaussian works that obey Crooks's theorem: mean delta ± s^2 / 2, variance s^2."""
    generator = torch.Generator().manual_seed(seed)
    one, other = torch.randn(2, num, num_data, generator=generator, dtype=F64)
    return delta + 1.0 + math.sqrt(2) * one, -delta + 1.0 + math.sqrt(2) * other


def test_bennett_on_gaussian_works():
    forward, reverse = works(-3.7, 400)
    for one, other in ((forward, reverse), (forward[:50], reverse), (forward, reverse[:50])):
        bar = pv.bennett_acceptance_ratio(one, other)
        z = (bar.log_ratio - 3.7) / bar.variance.sqrt()
        assert z.mean().abs() < 4 / math.sqrt(50) and 0.7 < z.square().mean().sqrt() < 1.4
        fit = pv.crooks_fit(one, other)
        assert ((fit.slope - 1) / fit.slope_variance.sqrt()).mean().abs() < 4 / math.sqrt(50)
        z = (fit.crossing + 3.7) / fit.crossing_variance.sqrt()
        assert z.mean().abs() < 4 / math.sqrt(50) and 0.7 < z.square().mean().sqrt() < 1.4
    # Bennett's ratio uses both sides: it beats Jarzynski's average of one.
    jarzynski = (-forward).logsumexp(0) - math.log(400)
    assert (pv.bennett_acceptance_ratio(forward, reverse).log_ratio - 3.7).std() < (jarzynski - 3.7).std()


def test_crooks_sees_what_is_out_of_equilibrium():
    forward, reverse = works(0.0, 2000, num_data=4)
    fit = pv.crooks_fit(forward, 1.5 * reverse)
    assert ((fit.slope - 1) / fit.slope_variance.sqrt()).abs().min() > 4


def test_infinite_works_are_chains_without_weight():
    forward, reverse = works(0.5, 300, num_data=3)
    dead = torch.full((300, 3), torch.inf, dtype=F64)
    bar = pv.bennett_acceptance_ratio(torch.cat([forward, dead]), reverse)
    # Half of the chains weigh nothing: the ratio is half of what it was.
    assert (bar.log_ratio + 0.5 + math.log(2)).abs().max() < 0.5
    for bad in (dead, torch.full((300, 3), torch.nan, dtype=F64)):
        with pytest.raises(ValueError, match="numbers"):
            pv.bennett_acceptance_ratio(bad, reverse)
    with pytest.raises(ValueError, match="shapes"):
        pv.bennett_acceptance_ratio(forward, reverse[:, :2])
    with pytest.raises(ValueError, match="two works"):
        pv.bennett_acceptance_ratio(forward[:1], reverse)


@pytest.mark.parametrize(("make", "start"), [(gt.linear_gaussian, "prior"), (gt.gamma_poisson, "guide")])
def test_histograms_cross_at_the_exact_free_energy(make, start, tmp_path):
    truth = make(4)
    work = pv.work_distributions(
        truth.model, truth.guide, truth.x, simulate=24, ais=pv.AIS(5, 150, start, 3), moves=12
    )
    exact = pv.evidence(truth.model, truth.guide, work.x, estimators=[pv.Exact()])["Exact"].per_datum
    n = len(exact)
    fit = work.crooks
    for value, variance, target in (
        (work.bar.log_ratio, work.bar.variance, exact),
        (-fit.crossing, fit.crossing_variance, exact),
        (fit.slope, fit.slope_variance, torch.ones(n, dtype=F64)),
    ):
        assert (value - target).mean().abs() < 4 * variance.sum().sqrt() / n
        assert ((value - target) / variance.sqrt()).square().mean().sqrt() < 1.7
    assert work.lower.mean() - 0.1 < exact.mean() < work.upper.mean() + 0.1
    there, back = work.dissipated
    assert there.mean() > 0 and back.mean() > 0
    forward, reverse, edges = work.histogram(1, 20)
    width = float(edges[1] - edges[0])
    assert 0.8 < float(forward.sum()) * width <= 1 and 0.8 < float(reverse.sum()) * width <= 1
    ax = work.plot(datum=1, exact=float(exact[1]))
    plots.save(ax, tmp_path / "work.png")
    with pytest.raises(ValueError, match="datum"):
        work.plot(datum=n)
    assert "Crooks slope" in repr(work)


def test_script_wants_a_run_folder_or_truth(capsys):
    from pyrovae.inference.free_energy import main

    for arguments in ([], ["runs/none", "--truth"]):
        assert main(arguments) == 2
        assert "expected a run folder or --truth" in capsys.readouterr().err


def test_works_that_do_not_overlap_have_no_difference():
    """Forward works far above, reverse ones far below: the old fit was 26 ± 9e11."""
    g = torch.Generator().manual_seed(0)
    apart = 60 + torch.randn(50, 2, generator=g, dtype=F64), torch.randn(50, 2, generator=g, dtype=F64) + 8
    for fit in (pv.bennett_acceptance_ratio, pv.crooks_fit):
        with pytest.raises(ValueError, match=r"overlap of at most .* \(< 0.03\).*more temperatures"):
            fit(*apart)
    # One datum that overlaps has its figures, the other has none.
    forward, reverse = apart
    forward[:, 0] = reverse[:, 0] * 0 + 0.5 + torch.randn(50, generator=g, dtype=F64)
    reverse[:, 0] = 0.5 + torch.randn(50, generator=g, dtype=F64)
    found, fit = pv.bennett_acceptance_ratio(forward, reverse), pv.crooks_fit(forward, reverse)
    assert abs(found.log_ratio[0]) < 4 * found.variance[0].sqrt() and found.overlap[0] > 0.1
    assert found.log_ratio[1].isnan() and found.variance[1].isnan() and found.overlap[1] < 0.03
    assert torch.isfinite(fit.slope[0]) and fit.slope[1].isnan() and fit.crossing_variance[1].isnan()


def test_work_without_overlap_is_said():
    g = torch.Generator().manual_seed(0)
    forward, reverse = (shift + torch.randn(50, 2, generator=g, dtype=F64) for shift in (60, 8))
    work = WorkDistributions(forward, reverse, torch.zeros(2), torch.ones(2))
    assert "works do not overlap: no BAR, no Crooks slope" in repr(work) and "e+" not in repr(work)
    work.plot()
    forward[:, 0], reverse[:, 0] = forward[:, 0] - 59.5, reverse[:, 0] - 7.5
    text = repr(WorkDistributions(forward, reverse, torch.zeros(2), torch.ones(2)))
    assert "both of the 1 data whose works overlap" in text and "nan" not in text


def test_errors_of_energies_are_those_of_repeated_runs():
    """Jackknife over weighted draws: the stated errors of <E> and of the heat capacity are their spread."""
    g = torch.Generator().manual_seed(1)
    z = 1.3 * torch.randn(400, 3000, generator=g, dtype=F64)  # 3000 runs of 400 draws from N(0, 1.3^2)
    log_weights = -0.5 * z.square() + 0.5 * (z / 1.3).square()  # for N(0, 1)
    found = weighted_moments(log_weights, 1e4 + 0.5 * z.square())
    assert abs(found.mean.mean() - 1e4 - 0.5) < 0.01 and abs(found.variance.mean() - 0.5) < 0.02
    for value, error in ((found.mean, found.mean_error), (found.variance, found.variance_error)):
        assert float(error.mean().sqrt() / value.std()) == pytest.approx(1.0, abs=0.1)
    # At T = 2, of the density exp(-E) that is N(0, 1/2): p_T is N(0, 1), whose entropy is known.
    entropy, error = entropy_of_weights(log_weights, z.square(), 2.0)
    exact = dist.Normal(torch.tensor(0.0, dtype=F64), 1.0).entropy()
    # The proposal's own constant is in the weights: ln Z of exp(-z^2/2) is ln of its mean weight.
    entropy = entropy + 0.5 * math.log(2 * math.pi) + math.log(1.3)
    assert abs(entropy.mean() - exact) < 4 * float(entropy.std()) / 3000**0.5 + 2e-3
    assert float(error.mean().sqrt() / entropy.std()) == pytest.approx(1.0, abs=0.1)
    free = pv.thermodynamics.free_energy(*linear_pair(), temperatures=(1.0, 2.0), num_samples=500)
    mean, _, se = free.mean("heat_capacity")
    assert mean.shape == se.shape == (2,) and (se > 0).all() and (se < 0.2).all()
    assert (free.mean("equilibrium_energy")[2] > 0).all()


def linear_pair():
    truth = gt.linear_gaussian(6, 1)
    return truth.model, truth.guide, truth.x
