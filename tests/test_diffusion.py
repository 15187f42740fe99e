"""Variational diffusion: the numbers of Gaussian data, both forms of the guide, schedules, sampling, scripts."""

import functools
import math

import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import nn

import pyrovae as pv
from pyrovae import plots
from pyrovae.inference import evaluate, train
from pyrovae.inference.options.building import build
from pyrovae.inference.options.options import ModelOptions
from pyrovae.models.composing.diffusion import compose_process, first_gamma
from pyrovae.models.diffusing.antithetic import AntitheticUniform
from pyrovae.models.diffusing.denoisers import MLPDenoiser, UNetDenoiser
from pyrovae.models.diffusing.diffusion_process import Process, bits_per_dim
from pyrovae.models.diffusing.emissions import Continuous, GreyLevels
from pyrovae.models.diffusing.noise_schedules import GivenSchedule, LearnedSchedule, LinearSchedule
from pyrovae.models.diffusion import DiffusionBound, DiffusionChain
from pyrovae.objectives import check_objective
from pyrovae.programs import inspect_program, reconstruct, seeded, simulate
from pyrovae.training import measure

F64 = torch.float64
V, ENDS = 2.5, (-8.0, 5.0)  # MATH.md 4.10
ENTROPY = 0.5 * math.log(2 * math.pi * math.e * V)


@pytest.fixture(scope="module")
def digits():
    return pv.data.load("digits")


class Optimal(nn.Module):
    """E[epsilon | z_t] for data N(0, v)."""

    def __init__(self, v=V):
        super().__init__()
        self.v = v

    def forward(self, z, gamma):
        alpha2, var = torch.sigmoid(-gamma), torch.sigmoid(gamma)
        return (var.sqrt() / (alpha2 * self.v + var)).unsqueeze(-1) * z


def gaussian(schedule=None):
    return Process((1,), schedule or LinearSchedule(*ENDS), Optimal(), Continuous()).double()


def exact_bound(bound, nodes=200_000):
    """The VLB of N(0, v) data without noise: what is averaged is quadratic in x and in each noise, so that the two
    points of equal variance give its mean, and times are averaged over cells (over T steps: all of them)."""
    process, steps = bound.process, bound.steps or nodes
    u = (torch.arange(steps, dtype=F64) + 0.5) / steps
    with torch.no_grad():
        total = 0.0
        for y in (-(V**0.5), V**0.5):
            for e in (-1.0, 1.0):
                x, noise = torch.full((1,), y, dtype=F64), torch.full((steps, 1), e, dtype=F64)
                total += bound.diffusion_loss(x.expand(steps, 1), u, noise).mean()
                sigma = math.exp(ENDS[0] / 2)
                total -= process.likelihood(x + sigma * e).log_prob(x)
                total += process.prior_matching(x)
    return float(total) / 4


# Gaussian data ---------------------------------------------------------------------------------------


VLB = {50: 2.4362, 100: 2.1452, 1000: 1.9030, None: 1.877176}


@pytest.mark.parametrize("steps", VLB)
def test_numbers_of_gaussian_data(steps):
    bound = DiffusionBound(gaussian(), steps)
    assert exact_bound(bound) == pytest.approx(VLB[steps], abs=6e-5 if steps else 2e-6)


def model_variance(steps):
    """Of x under the chain: every step is linear and Gaussian."""
    process, var = gaussian(), 1.0
    gammas, one = process.gammas(steps), torch.ones(1, dtype=F64)
    for i in range(steps, 0, -1):
        mean, scale = process.backward(one, Optimal()(one, gammas[i]), gammas[i - 1], gammas[i])
        var = float(mean) ** 2 * var + float(scale) ** 2
    return var / float(torch.sigmoid(-gammas[0])) + math.exp(ENDS[0])


def model_nll(steps):
    """Exact -E ln p(x) of the chain."""
    var = model_variance(steps)
    return 0.5 * math.log(2 * math.pi * var) + 0.5 * V / var


def test_bound_likelihood_and_entropy_are_in_order():
    assert pytest.approx(1.877084, abs=1e-6) == ENTROPY
    last = math.inf
    for steps in (50, 100, 1000):
        vlb, nll = exact_bound(DiffusionBound(gaussian(), steps)), model_nll(steps)
        assert vlb >= nll >= ENTROPY and vlb < last
        last = vlb
    assert exact_bound(DiffusionBound(gaussian())) >= ENTROPY
    # The closed gap: finer chains have both.
    assert (
        model_nll(1000) - ENTROPY < 1e-3
        and exact_bound(DiffusionBound(gaussian(), 1000)) - model_nll(1000) < 0.03
    )


def test_continuous_bound_does_not_depend_on_the_schedules_shape():
    curved = LearnedSchedule(*ENDS)
    with torch.no_grad(), seeded(0, "shape"):
        for p in curved.parameters():
            p.add_(torch.randn_like(p))
    # Rows of a hand-made schedule end on the cells of the quadrature.
    given = GivenSchedule([-8.0, -6.0, -5.0, 1.0, 5.0])
    values = [exact_bound(DiffusionBound(gaussian(s))) for s in (curved, given)]
    assert values == pytest.approx([VLB[None]] * 2, abs=2e-5)
    # With few steps it does.
    assert abs(exact_bound(DiffusionBound(gaussian(given), 50)) - VLB[50]) > 0.01


def test_posterior_form_is_exact_under_both_elbos():
    chain = DiffusionChain(gaussian(), 10)
    x = math.sqrt(V) * torch.randn(20_000, 1, generator=torch.Generator().manual_seed(0), dtype=F64)
    x = x * math.sqrt(V / float(x.square().mean()))  # of exactly the variance: the noise left is that of z
    truth = exact_bound(DiffusionBound(gaussian(), 10))
    program = inspect_program(chain.model, chain.guide, x[:10])
    for loss in (Trace_ELBO(), TraceMeanField_ELBO()):
        check_objective(loss, program)
        with seeded(1, "noise"):
            repeats = torch.tensor([loss.loss(chain.model, chain.guide, x) / len(x) for _ in range(8)])
        se = float(repeats.std()) / math.sqrt(8)
        assert se < 0.02
        # A t of 7 degrees of freedom: 4 sigma of a normal are 7 of it.
        assert abs(float(repeats.mean()) - truth) < 7 * se, type(loss)


def test_importance_sampling_of_the_chain_meets_its_exact_likelihood():
    chain = DiffusionChain(gaussian(), 10)
    x = torch.tensor([[-1.0], [0.0], [2.0]], dtype=F64)
    ev = pv.evidence(chain.model, chain.guide, x, estimators=[pv.IS(1000)])["IS"]
    p = model_variance(10)
    truth = dist.Normal(torch.zeros((), dtype=F64), math.sqrt(p)).log_prob(x[:, 0])
    assert 1e-5 < ev.se_mc < 0.1
    assert abs(float((ev.per_datum - truth).mean())) < 4 * ev.se_mc + 5e-3


def test_the_bound_refuses_weights_and_draws():
    bound, x = DiffusionBound(gaussian()), torch.zeros(4, 1, dtype=F64)
    with pytest.raises(ValueError, match="bound_only"):
        pv.log_weights(bound.model, bound.guide, x, num_samples=3)
    for estimator in (pv.IS(10), pv.AIS(4, 2)):
        with pytest.raises(ValueError, match="bound_only"):
            pv.evidence(bound.model, bound.guide, x, estimators=[estimator])
    with pytest.raises(ValueError, match="bound_only"):
        check_objective(
            pv.objectives.Renyi(alpha=0.5, num_particles=2), inspect_program(bound.model, bound.guide, x)
        )
    for draw in (lambda: simulate(bound.model, len(x), x), lambda: reconstruct(bound.model, bound.guide, x)):
        with pytest.raises(ValueError, match="try its own sample"):
            draw()


# Times and schedules ---------------------------------------------------------------------------------


def test_antithetic_times_are_uniform_and_cut_the_variance():
    like = torch.zeros(())
    with seeded(0, "times"):
        times = torch.stack([AntitheticUniform((16,), like).rsample() for _ in range(2000)])
        independent = torch.rand(2000, 16)
    assert abs(float(times[:, 3].mean()) - 0.5) < 4 / math.sqrt(12 * 2000)
    assert abs(float(times[:, 3].square().mean()) - 1 / 3) < 4 * 0.3 / math.sqrt(2000)
    # Each cell of width 1/16 holds one.
    assert ((times.sort(-1).values * 16).floor().diff() == 1).float().mean() > 0.9
    assert times.square().mean(-1).var() < 0.08 * independent.square().mean(-1).var()
    assert AntitheticUniform((5,), like).log_prob(times[0, :5]).abs().max() == 0
    assert AntitheticUniform((5,), like).expand((3, 5)).rsample().shape == (3, 5)


@pytest.mark.parametrize("units", [1, 32])
def test_learned_schedule_is_monotone_pinned_and_knows_its_derivative(units):
    schedule = LearnedSchedule(-7.9, 5.0, units).double()
    with torch.no_grad(), seeded(0, "schedule"):
        for p in schedule.parameters():
            p.add_(2 * torch.randn_like(p))
    t = torch.linspace(0, 1, 101, dtype=F64, requires_grad=True)
    gamma, slope = schedule(t)
    assert float(gamma[0]) == pytest.approx(-7.9) and float(gamma[-1]) == pytest.approx(5.0)
    assert (gamma.diff() > 0).all() and (slope > 0).all()
    torch.testing.assert_close(torch.autograd.grad(gamma.sum(), t)[0], slope)


def test_schedule_gets_the_gradient_of_the_variance():
    """E[L^2] / E[L] by hand, in eager; and the denoiser that of the loss."""
    process = Process((2,), LearnedSchedule(*ENDS, 4), MLPDenoiser(2, 8, 1), Continuous())
    bound = DiffusionBound(process)
    with torch.no_grad(), seeded(0, "weights"):
        process.denoiser.net.last.weight.normal_(std=0.3)
    y, u, noise = torch.randn(6, 2), torch.rand(6), torch.randn(6, 2)
    bound.diffusion_loss(y, u, noise).sum().backward()
    got = {n: p.grad.clone() for n, p in process.named_parameters() if p.grad is not None}
    process.zero_grad()
    gamma, weight = process.schedule(u)
    z = torch.sigmoid(-gamma).sqrt().unsqueeze(-1) * y + torch.sigmoid(gamma).sqrt().unsqueeze(-1) * noise
    loss = 0.5 * weight * (noise - process.denoiser(z, gamma)).square().sum(-1)
    for objective, part in (
        (loss.square().sum() / loss.detach().mean(), "schedule"),
        (loss.sum(), "denoiser"),
    ):
        wanted = [(n, p) for n, p in process.named_parameters() if n.startswith(part)]
        grads = torch.autograd.grad(objective, [p for _, p in wanted], retain_graph=True)
        for (n, _), grad in zip(wanted, grads, strict=True):
            torch.testing.assert_close(got[n], grad, rtol=1e-4, atol=1e-5)


def test_a_learned_schedule_lowers_the_variance_of_the_bound():
    bound = DiffusionBound(gaussian(LearnedSchedule(*ENDS)))
    x = math.sqrt(V) * torch.randn(256, 1, generator=torch.Generator().manual_seed(0), dtype=F64)

    def spread():
        with torch.no_grad(), seeded(5, "spread"):
            y, u, noise = x.repeat(20, 1), torch.rand(5120, dtype=F64), torch.randn(5120, 1, dtype=F64)
            return float(bound.diffusion_loss(y, u, noise).std())

    before = spread()
    adam = functools.partial(torch.optim.Adam, lr=3e-2)
    svi = pv.SVI(bound.model, bound.guide, adam, Trace_ELBO(), compile=False)
    with seeded(0, "train"):
        for _ in range(120):
            svi.step(x)
    assert spread() < 0.97 * before
    assert exact_bound(bound) == pytest.approx(VLB[None], abs=1e-4)  # and the bound stays


# Data ------------------------------------------------------------------------------------------------


def small(data, **options):
    with seeded(0, "weights"):
        return compose_process(data, MLPDenoiser(math.prod(data.spec.event_shape), 16, 1), **options)


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_emission_is_a_distribution_of_the_levels(levels):
    emission, gamma = GreyLevels(levels), first_gamma(levels)
    x = torch.arange(levels).float()
    y = emission.encode(x)
    assert float(y[0]) == -1 and float(y[-1]) == 1
    p = torch.stack([emission(torch.tensor([0.3]), gamma).log_prob(v.reshape(1)) for v in x]).exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-5)
    noisy = y + math.exp(gamma / 2) * torch.randn(500, levels, generator=torch.Generator().manual_seed(0))
    # So little noise that a level is told with certainty, or nearly so for bits.
    assert float(-emission(noisy, gamma).log_prob(x.expand(500, -1)).mean()) < 0.02


def test_terms_are_logged_apart_and_add_up(digits):
    bound = DiffusionBound(small(digits))
    fit = pv.fit(bound.model, bound.guide, digits, epochs=1, ema=0.9, lr=1e-3)
    row = fit.history[-1]
    terms = [row[f"term_{n}"] for n in ("x", "prior_matching", "diffusion")]
    assert row["elbo"] == pytest.approx(sum(terms), rel=1e-6) and row["kl"] == pytest.approx(0, abs=1e-3)
    assert terms[0] > -1 and terms[1] < 0 and terms[2] < -50
    assert 0 < bits_per_dim(-row["elbo"], 64) < 12
    metrics = measure(inspect_program(fit.model, fit.guide, digits.test[:50]), num_samples=4)
    assert set(metrics.terms) == {"x", "prior_matching", "diffusion"}


@pytest.mark.slow
def test_compiled_step_equals_eager_with_the_schedules_gradient(digits):
    bound = DiffusionBound(small(digits))
    x = digits.train[:16]
    svi = pv.SVI(
        bound.model, bound.guide, functools.partial(torch.optim.SGD, lr=1e-6), Trace_ELBO(), compile=True
    )
    start = {n: p.detach().clone() for n, p in bound.process.named_parameters()}

    def run():
        with torch.no_grad():
            for n, p in bound.process.named_parameters():
                p.copy_(start[n])
        with seeded(0, "step"):
            loss = svi.step(x)
        return loss, {n: p.detach() - start[n] for n, p in bound.process.named_parameters()}

    eager, moved = run()
    run()
    compiled, also = run()
    assert svi.refused is None and svi.compiled_objective is not None
    assert compiled == pytest.approx(eager, rel=1e-5)
    for n, step in moved.items():
        torch.testing.assert_close(also[n], step, rtol=5e-2, atol=1e-6)
    assert moved["schedule.centres"].abs().sum() > 0


def test_binary_data_and_the_unet():
    bits = pv.data.load("digits", binarise="static")
    with seeded(0, "weights"):
        process = compose_process(bits, UNetDenoiser((8, 8), (4, 8)))
    assert process.ends[0] == -3.6
    bound = DiffusionBound(process)
    fit = pv.fit(bound.model, bound.guide, bits.train[:128], epochs=2, batch_size=32, lr=1e-2)
    assert fit.history[1]["elbo"] > fit.history[0]["elbo"]
    # Any number of leading dims, each datum by itself.
    z, gamma = torch.randn(3, 4, 64), torch.randn(3, 4)
    whole = process.denoiser(z, gamma)
    torch.testing.assert_close(whole[1, 2], process.denoiser(z[1, 2], gamma[1, 2]), rtol=1e-4, atol=1e-5)


def test_ancestral_sampling_draws_the_data_distribution():
    process = gaussian()
    x = process.sample(20_000, 100, seed=0)
    assert x.shape == (20_000, 1)
    nll_var = float(x.var())
    assert abs(nll_var - V) < 4 * V * math.sqrt(2 / 20_000) + 0.15  # 100 steps: close to v, not equal
    assert torch.equal(process.sample(5, 10, seed=1), process.sample(5, 10, seed=1))
    # The chain's own draws, as a Pyro model, are of the same law.
    drawn = simulate(DiffusionChain(process, 20).model, 20_000, torch.zeros(1, 1, dtype=F64), seed=3).x
    again = process.sample(20_000, 20, seed=4)
    assert abs(float(drawn.var()) - float(again.var())) < 4 * V * math.sqrt(4 / 20_000)


def test_noising_has_the_law_of_each_time():
    """q(z_t | x) = N(alpha_t y, sigma_t^2), and neighbours covary as a Markov chain's do."""
    process, x = gaussian(), torch.full((40_000, 1), 1.7, dtype=F64)
    states, gammas = list(process.noising(x, 5, seed=0)), process.gammas(5)
    alphas, sigmas = torch.sigmoid(-gammas).sqrt(), torch.sigmoid(gammas).sqrt()
    for z, alpha, sigma in zip(states, alphas, sigmas, strict=True):
        assert abs(z.mean() - alpha * 1.7) < 4 * sigma / 200
        assert abs(z.var() / sigma.square() - 1) < 4 * math.sqrt(2 / 40_000)
    covariance = ((states[2] - states[2].mean()) * (states[3] - states[3].mean())).mean()
    exact = alphas[3] / alphas[2] * sigmas[2].square()
    assert abs(covariance - exact) < 4 * sigmas[2] * sigmas[3] * math.sqrt(2) / 200
    with pytest.raises(ValueError, match="steps >= 1"):
        next(process.noising(x, 0))


def test_samples_are_grey_levels_and_the_chain_is_drawn(digits):
    bound = DiffusionBound(small(digits))
    x = bound.sample(6, 5)
    assert x.shape == (6, 64) and set(x.unique().tolist()) <= set(map(float, range(17)))
    assert len(list(bound.process.chain(2, 7))) == 8
    ax = plots.plot_chain(
        [z.reshape(6, 64) for z in bound.process.chain(6, 20)], digits.spec.image_shape, num=3
    )
    assert len(ax.images) == 1
    process, shape = bound.process, digits.spec.image_shape
    there = [z.reshape(6, 64) for z in process.noising(digits.test[:6], 20)]
    y = process.encode(digits.test[:6])
    ax = plots.plot_noising(there, shape, x=y, gammas=process.gammas(20).detach(), columns=3)
    heads = [t.get_text() for t in ax.get_xticklabels()]
    assert (
        heads[0] == "x" and heads[1].startswith("t = 0\nSNR 2") and heads[-1] == "1\n0.0067"
    )  # exp(7.9), exp(-5)
    back = plots.plot_chain(there[::-1], shape, gammas=process.gammas(20).detach(), columns=3)
    assert [t.get_text() for t in back.get_xticklabels()][-1] == heads[1].removeprefix("t = ").replace(
        "SNR ", ""
    )
    with pytest.raises(ValueError, match="each of 21 states, got 2"):
        plots.plot_noising(there, shape, gammas=torch.zeros(2))
    figure = plots.plot_noise_schedule(
        {"learned": bound.process.schedule, "linear": LinearSchedule(-7.9, 5.0)}
    )
    assert len(figure.lines) >= 2


# Bad input ---------------------------------------------------------------------------------------------


def test_bad_schedules():
    with pytest.raises(ValueError, match=r"rises strictly, got -3 and then -4 \(at 2 of 4\)"):
        GivenSchedule([-5.0, -3.0, -4.0, 2.0])
    for make in (LinearSchedule, LearnedSchedule):
        with pytest.raises(ValueError, match="ends in order"):
            make(5.0, -8.0)
        with pytest.raises(ValueError, match="ends in order"):
            make(math.nan, 1.0)
    with pytest.raises(ValueError, match="at least two"):
        GivenSchedule([1.0])
    with pytest.raises(ValueError, match="at least one unit"):
        LearnedSchedule(units=0)


def test_bad_input(digits):
    with pytest.raises(ValueError, match="expected the 17 levels of digits, got 256"):
        compose_process(digits, levels=256)
    with pytest.raises(ValueError, match="at least 2 levels"):
        GreyLevels(1)
    with pytest.raises(ValueError, match=r"halved 2 times \(multiples of 4\), got \(14, 14\)"):
        UNetDenoiser((14, 14), (4, 8, 8))
    process = small(digits)
    for steps in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match="steps T >= 1"):
            DiffusionChain(process, steps)
    with pytest.raises(ValueError, match="at most the 10 steps"):
        DiffusionBound(process, 10).sample(2, 11)
    with pytest.raises(ValueError, match="number of steps"):
        DiffusionBound(process).sample(2)
    with pytest.raises(ValueError, match="num and steps >= 1"):
        process.sample(0, 3)


OPTIONS = {
    "no --guide": {"guide": "top-down"},
    "no --latent-dim": {"latent_dim": 3},
    "likelihood auto": {"likelihood": "binomial"},
    "one --hidden width": {"hidden": (8, 16)},
    "--network mlp or conv": {"network": "gated"},
    "1 <= diffusion_steps": {"diffusion_steps": 0},
    "halved 4 times": {"network": "conv", "channels": (4, 4, 4, 4, 4)},
}


@pytest.mark.parametrize("message", OPTIONS)
def test_bad_options(digits, message):
    with pytest.raises(ValueError, match=message):
        build(ModelOptions(model="diffusion", **OPTIONS[message]), digits, 0)


def test_options_build_what_they_say(digits):
    owner = build(ModelOptions(model="diffusion", hidden=(8, 8)), digits, 0).model.__self__
    assert isinstance(owner, DiffusionBound) and owner.process.ends == (-7.9, 5.0) and owner.steps is None
    options = ModelOptions(model="diffusion", hidden=(8,), diffusion_steps=4, noise_schedule="linear")
    pair = build(options, digits, 0)
    assert isinstance(pair.model.__self__, DiffusionChain)
    lw = pv.log_weights(*pair, digits.test[:3], num_samples=5)
    assert torch.isfinite(lw).all()


def test_a_run_is_evaluated_by_its_bound_and_refuses_is(tmp_path, capsys):
    """Asked for nothing, evaluate takes the bound, and says why there is no more; asked for IS, it says no."""
    run = str(tmp_path / "run")
    argv = ["--model", "diffusion", "--data", "digits", "--hidden", "8", "--epochs", "1", "--warmup", "0"]
    assert train.main([*argv, "--out", run, "--compile", "off", "--quiet", "--device", "cpu"]) == 0
    asked = ["--limit", "20", "--num-samples", "30", "--quiet", "--device", "cpu"]
    assert evaluate.main([run, *asked]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "validation ELBO" in said and "prior matching -0." in said
    assert "ELBO" in said and "this program is that bound and has no density" in said
    assert evaluate.main([run, *asked, "--estimators", "is"]) == 2
    assert "bound_only" in capsys.readouterr().err
