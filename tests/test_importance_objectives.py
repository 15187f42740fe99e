"""IWAE, Renyi, STL and DReG: bounds of the data whatever the scales, refusals and use."""

import functools
import itertools
import math
from contextlib import nullcontext

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import RenyiELBO, Trace_ELBO
from torch import nn

import pyrovae as pv
from pyrovae.models.vae import VAE
from pyrovae.objectives import IWAE, STL, BetaELBO, DReG, Renyi, check_objective, with_terms
from pyrovae.programs import ParameterStore, inspect_program
from pyrovae.programs.plates import ChooseSubsample

from . import handwritten as hw

F64 = torch.float64
ZERO = torch.zeros((), dtype=F64)
EXACT, WRONG = hw.both(hw.plain_guide)
OBJECTIVES = {
    "IWAE": lambda **o: IWAE(4, **o),
    "Renyi": lambda **o: Renyi(0.5, 4, **o),
    "Renyi < 0": lambda **o: Renyi(-1.0, 4, **o),
    "STL": lambda **o: STL(4, **o),
    "DReG": lambda **o: DReG(4, **o),
}


def iwae(log_weights):
    return torch.logsumexp(log_weights, 0) - math.log(len(log_weights))


# Values --------------------------------------------------------------------------------------------

SCALES = {"subsample_size=len(x)": 1000 / hw.N, "poutine.scale": 0.37}


@pytest.mark.parametrize("name", [n for n in hw.CASES if "enumerated" not in n])
@pytest.mark.parametrize("objective", ["IWAE", "Renyi < 0", "STL", "DReG"])
def test_exact_guides_give_the_evidence(name, objective):
    """All weights are p(x): whatever is made of them is ln p(x), scaled outside."""
    case = hw.CASES[name]()
    options = {"plate": case.options.get("plate"), "vectorize_particles": case.vectorised}
    made = OBJECTIVES[objective](**options)
    evidence = case.log_evidence
    picked, scale, subsample = torch.arange(len(evidence)), SCALES.get(name, 1.0), nullcontext()
    if case.calling == "indexed":
        picked = torch.tensor([3, 1, 0] if name == "x[ind], at most" else [3, 1])
        scale = (400 if "training data" in name else hw.N) / len(picked)
        subsample = ChooseSubsample("data", picked)
    with subsample:
        loss = made.loss(case.model, case.exact, *case.args)
    assert loss == pytest.approx(-scale * float(evidence[picked].sum()), rel=1e-9)


@pytest.mark.parametrize(
    "name", ["plain", "two latents", "subsample_size=len(x)", "inner plate", "fixed shape"]
)
def test_iwae_is_the_log_mean_of_log_weights(name):
    case = hw.CASES[name]()
    program = inspect_program(case.model, case.wrong, *case.args)
    torch.manual_seed(3)
    log_weights = program.run(torch.arange(hw.N), 6).log_weights()
    scale, options = SCALES.get(name, 1.0), {"vectorize_particles": case.vectorised}
    expected = {
        IWAE(6, **options): iwae(log_weights),
        DReG(6, **options): iwae(log_weights),
        STL(6, **options): log_weights.mean(0),
        Renyi(0.0, 6, **options): iwae(log_weights),
        Renyi(0.4, 6, **options): iwae(0.6 * log_weights) / 0.6,
        Renyi(3.0, 6, **options): iwae(-2 * log_weights) / -2,
    }
    for objective, value in expected.items():
        for _ in range(2):  # the look at the program takes none of the noise
            torch.manual_seed(3)
            # The plate would draw its indices, and with them noise, by itself.
            with ChooseSubsample("data", torch.arange(hw.N)):
                loss = objective.loss(case.model, case.wrong, *case.args)
            assert loss == pytest.approx(-scale * float(value.sum()), rel=1e-10)


def test_one_particle_is_the_elbo():
    torch.manual_seed(3)
    expected = Trace_ELBO().loss(hw.plain_model, WRONG, hw.X)
    for objective in (IWAE(1), STL()):
        torch.manual_seed(3)
        assert objective.loss(hw.plain_model, WRONG, hw.X) == pytest.approx(expected, rel=1e-12)


def test_renyi_limits():
    def value(objective):
        torch.manual_seed(3)
        return -objective.loss(hw.plain_model, WRONG, hw.X)

    alphas = [-30.0, -1.0, 0.0, 0.5, 1 - 1e-5, 1 + 1e-5, 3.0, 200.0]
    values = [value(Renyi(a, 8)) for a in alphas]
    assert values == sorted(values, reverse=True)
    assert values[2] == value(IWAE(8))
    elbo = value(STL(8))
    assert values[4] == pytest.approx(elbo, abs=2e-3) and values[5] == pytest.approx(elbo, abs=2e-3)
    program = inspect_program(hw.plain_model, WRONG, hw.X)
    torch.manual_seed(3)
    smallest = program.run(torch.arange(hw.N), 8).log_weights().amin(0).sum()
    assert values[-1] == pytest.approx(float(smallest), abs=hw.N * math.log(8) / 199 + 1e-9)
    for alpha in (1.0, 1 + 1e-9, math.nan):
        with pytest.raises(ValueError, match="use the ELBO"):
            Renyi(alpha, 4)


# Subsampling ------------------------------------------------------------------------------------------

PAIRS = [torch.tensor(p) for p in itertools.combinations(range(hw.N), 2)]


def idiom_two():
    """Half of the data is passed; the plate stands for all."""

    def model(x):
        with pyro.plate("data", hw.N, subsample_size=len(x)):
            z = pyro.sample("z", hw.prior())
            pyro.sample("x", hw.likelihood(z), obs=x)

    def guide(x):
        with pyro.plate("data", hw.N, subsample_size=len(x)):
            pyro.sample("z", hw.posterior(x, wrong=True))

    return model, guide


@pytest.mark.parametrize("idiom", [1, 2])
def test_minibatches_are_unbiased(idiom):
    """Over all pairs of data, the scaled bound has the mean of the bound of all data. Pyro's has not."""
    if idiom == 1:
        case = hw.CASES["x[ind], size fixed"]()
        model, guide = case.model, case.wrong
    else:
        model, guide = idiom_two()

    def losses(objective):
        torch.manual_seed(0)
        out = []
        for _ in range(30):
            total = 0.0
            for pair in PAIRS:
                if idiom == 1:
                    with ChooseSubsample("data", pair):
                        total += objective.loss(model, guide, hw.X)
                else:
                    total += objective.loss(model, guide, hw.X[pair])
            out.append(total / len(PAIRS))
        return np.array(out)

    torch.manual_seed(1)
    full = np.array([IWAE(5).loss(hw.plain_model, WRONG, hw.X) for _ in range(300)])
    for objective in (IWAE(5), DReG(5)):
        ours = losses(objective)
        error = math.hypot(ours.std() / math.sqrt(len(ours)), full.std() / math.sqrt(len(full)))
        assert error < 0.2 and abs(ours.mean() - full.mean()) < 4 * error
    theirs = losses(RenyiELBO(0.0, num_particles=5, vectorize_particles=True, max_plate_nesting=1))
    error = math.hypot(theirs.std() / math.sqrt(len(theirs)), full.std() / math.sqrt(len(full)))
    assert abs(theirs.mean() - full.mean()) > 8 * error
    # Pyro's even claims more than there is.
    assert -theirs.mean() > -full.mean()


def test_a_loop_over_particles_stays_with_one_subsample():
    case = hw.CASES["x[ind], size fixed"]()
    totals = [-hw.N / 2 * float(case.log_evidence[p].sum()) for p in PAIRS]
    for seed in range(5):
        torch.manual_seed(seed)
        loss = DReG(3, vectorize_particles=False).loss(case.model, case.exact, hw.X)
        assert min(abs(loss - t) for t in totals) < 1e-9


# KL weight -----------------------------------------------------------------------------------------------


def test_beta_by_hand():
    beta = 0.3
    program = inspect_program(hw.plain_model, WRONG, hw.X)
    torch.manual_seed(3)
    sites = program.run(torch.arange(hw.N), 6)
    kl = sites.guide["z"] - sites.prior["z"]
    weights = sites.likelihood["x"] - beta * kl
    case = hw.scaled_plate()
    for objective, value in ((IWAE(6), iwae(weights)), (DReG(6), iwae(weights)), (STL(6), weights.mean(0))):
        torch.manual_seed(3)
        got = BetaELBO(objective, beta).loss(hw.plain_model, WRONG, hw.X)
        assert got == pytest.approx(-float(value.sum()), rel=1e-10)
        made = with_terms(objective, beta=0.5)
        assert isinstance(made, BetaELBO) and made.beta == 0.5
        # The scale of a plate is no KL weight.
        torch.manual_seed(0)
        torch.randperm(1000)
        torch.manual_seed(0)
        scaled = objective.loss(case.model, case.exact, hw.X)
        assert scaled == pytest.approx(-1000 / hw.N * float(case.log_evidence.sum()), rel=1e-9)
    for options in ({"beta": 0.5}, {"free_bits": 0.1}):
        with pytest.raises(ValueError, match=r"KL term|free bits"):
            with_terms(Renyi(0.5, 4), **options)
    with pytest.raises(ValueError, match="Renyi without a KL weight"):
        check_objective(BetaELBO(Renyi(0.5, 4), 0.5), program)


# Refusals ------------------------------------------------------------------------------------------------


def refused(objective, model, guide, match, x=hw.X):
    with pytest.raises(ValueError, match=match):
        check_objective(objective, inspect_program(model, guide, x))
    with pytest.raises(ValueError, match=match):  # without pv.fit around it, too
        objective.loss(model, guide, x)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_refusals(name):
    make = OBJECTIVES[name]

    class Score(dist.MultivariateNormal):
        has_rsample = False

    def score_guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", Score(torch.zeros(len(x), hw.L, dtype=F64), torch.eye(hw.L, dtype=F64)))

    refused(make(), hw.plain_model, score_guide, "reparameterised guide")
    for case in (hw.enumerated_in_model(), hw.enumerated_in_guide()):
        refused(make(), case.model, case.exact, "expected TraceEnum_ELBO")

    def factor_model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", hw.prior())
            pyro.sample("x", hw.likelihood(z), obs=x)
            pyro.factor("extra", torch.zeros(len(x), dtype=F64))

    refused(make(), factor_model, WRONG, r"pyro.factor at \['extra'\] undeclared")
    refused(make(), pv.program(density="bound_only")(factor_model), WRONG, "bound_only")
    assert make().loss(poutine.scale(scale=2.0)(_declared_exact()), poutine.scale(scale=2.0)(WRONG), hw.X)

    case = hw.CASES["fixed shape"]()
    with pytest.raises(ValueError, match="vectorize_particles=False"):
        check_objective(make(), inspect_program(case.model, case.wrong, hw.X))
    check_objective(make(vectorize_particles=False), inspect_program(case.model, case.wrong, hw.X))
    case = hw.other_plate(False)
    with pytest.raises(ValueError, match="plate='images'"):
        check_objective(make(), inspect_program(case.model, case.wrong, hw.X, plate="images"))
    check_objective(make(plate="images"), inspect_program(case.model, case.wrong, hw.X, plate="images"))


def _declared_exact():
    @pv.program(density="exact")
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", hw.prior())
            pyro.sample("x", hw.likelihood(z), obs=x)
            pyro.factor("extra", torch.zeros(len(x), dtype=F64))

    return model


def test_jacobians_of_their_own():
    """Held fixed, ln q of such a guide is not its density: its score has a mean, so it may not be dropped."""
    log_s = torch.zeros(hw.L, dtype=F64, requires_grad=True)

    def make(density, loc):
        def guide(x):
            with pyro.plate("data", len(x)):
                e = pyro.sample("e", hw.prior(), infer={"is_auxiliary": True})
                scale = log_s.exp() if density else torch.ones(hw.L, dtype=F64)
                log_det = -scale.log().sum().expand(e.shape[:-1])
                pyro.sample("z", dist.Delta(loc + scale * e, log_density=log_det, event_dim=1))

        return guide

    free = torch.zeros(hw.L, dtype=F64, requires_grad=True)
    for objective in (STL(2), DReG(2)):
        for guide in (make(True, 0.1), make(False, free)):
            refused(objective, hw.plain_model, guide, "densities of their own")
    for objective in (IWAE(2), Renyi(0.5, 2)):
        check_objective(objective, inspect_program(hw.plain_model, make(True, free), hw.X))
        objective.loss_and_grads(hw.plain_model, make(True, free), hw.X)
    # AutoNormal draws an auxiliary with a density, and its Delta only renames it.
    guide = pyro.infer.autoguide.AutoNormal(hw.plain_model)
    guide(hw.X)
    for objective in (STL(2), DReG(2)):
        check_objective(objective, inspect_program(hw.plain_model, guide, hw.X))
        objective.loss(hw.plain_model, guide, hw.X)


def test_dropout_in_guides():
    """One site is scored where it was drawn; several are run again, which dropout would make another guide."""
    torch.manual_seed(0)
    drop = nn.Dropout(0.5)

    def one(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", hw.posterior(drop(x)))

    case = hw.two_latents()

    def two(x):
        case.exact(drop(x))

    for objective in (STL(2), DReG(2)):
        check_objective(objective, inspect_program(hw.plain_model, one, hw.X))
        with pytest.raises(ValueError, match="no noise of its own"):
            objective.loss(case.model, two, hw.X)
    assert drop.training
    IWAE(2).loss(case.model, two, hw.X)
    still = drop.eval()
    assert STL(2).loss(case.model, case.exact, hw.X) and not still.training


def test_scales_within_a_datum():
    def dims(subsample):
        def model(x):
            with pyro.plate("data", len(x), dim=-2):
                z = pyro.sample("z", hw.prior())
                with pyro.plate("dims", hw.D, subsample_size=subsample, dim=-1) as d:
                    loc = (z @ hw.W.T + hw.B).squeeze(-2)[..., d]
                    pyro.sample("x", dist.Normal(loc, math.sqrt(hw.S2)), obs=x[..., d])

        return model

    guide = hw.masked_dims().wrong
    every = functools.partial(guide, seen=torch.ones(hw.N, hw.D).bool())
    IWAE(3).loss(dims(None), every, hw.X)
    with pytest.raises(ValueError, match="subsampling of the plate 'data' alone"):
        IWAE(3).loss(dims(2), every, hw.X)

    def half(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", hw.prior())
            pyro.sample("x", hw.likelihood(z), obs=x)
            with poutine.scale(scale=0.5):
                pyro.sample("y", hw.likelihood(z), obs=x)

    refused(IWAE(3), half, WRONG, "one scale of all observed")
    refused(IWAE(3), hw.plain_model, hw.scaled_plate().exact, r"[sS]cale of")


def test_scale_of_each_datum():
    """`poutine.scale` with a weight per datum."""
    weights = torch.tensor([0.1, 1.0, 2.0, 0.5, 3.0], dtype=F64)
    scale = poutine.scale(scale=weights)
    case = hw.CASES["plain"]()
    expected = -float((weights * case.log_evidence).sum())
    for make in OBJECTIVES.values():
        assert make().loss(scale(case.model), scale(case.exact), hw.X) == pytest.approx(expected, rel=1e-9)


def test_numbers_of_particles():
    for bad in (0, -1, 2.5, True, "3"):
        for make in (IWAE, STL, DReG, functools.partial(Renyi, 0.5)):
            with pytest.raises(ValueError, match="num_particles >= "):
                make(bad)
    for make in (DReG, functools.partial(Renyi, 0.5)):
        with pytest.raises(ValueError, match="num_particles >= 2"):
            make(1)


# Use --------------------------------------------------------------------------------------------------------


class Learned(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(hw.D, 2 * hw.L).double()
        self.shift = nn.Parameter(torch.zeros(hw.D, dtype=F64))

    def model(self, x):
        pyro.module("pair", self)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", hw.prior())
            pyro.sample("x", hw.likelihood(z, self.shift), obs=x)

    def guide(self, x):
        pyro.module("pair", self)
        loc, raw = self.net(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_is_that_of_pyro(name):
    out = []
    for svi in (pv.SVI, pyro.infer.SVI):
        torch.manual_seed(0)
        pair = Learned()
        with ParameterStore().active():
            stepper = svi(pair.model, pair.guide, pyro.optim.Adam({"lr": 0.01}), OBJECTIVES[name]())
            losses = []
            for i in range(30):
                torch.manual_seed(i)
                losses.append(stepper.step(hw.X))
            losses.append(stepper.evaluate_loss(hw.X))
        out.append((losses, torch.cat([p.detach().flatten() for p in pair.parameters()])))
    assert out[0][0] == out[1][0] and torch.equal(out[0][1], out[1][1])
    assert sum(out[0][0][-10:]) < sum(out[0][0][:10])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_fit_on_digits(name):
    torch.manual_seed(0)
    data = pv.data.load("digits")
    vae = VAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Gaussian(pv.networks.MLP(2, (16,), data.train[0].numel())),
        guide=pv.guides.DiagonalGaussian(pv.networks.MLP(data.train[0].numel(), (16,), 16), latent_dim=2),
    )
    x = data.train[:256].reshape(256, -1).float() / data.train.max()
    beta = 1.0 if name.startswith("Renyi") else pv.Warmup(2)
    fit = pv.fit(
        vae.model, vae.guide, x, objective=OBJECTIVES[name](), epochs=4, batch_size=64, beta=beta, lr=1e-2
    )
    losses = [row["loss"] for row in fit.history]
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0]
    assert fit.history[-1]["elbo"] > fit.history[0]["elbo"]


@pytest.mark.slow
def test_compiled_steps_are_the_eager_ones():
    """DReG's hooks and the fixed draws, in generated code, with a KL weight that changes."""
    out = []
    for compiled in (False, True):
        torch.manual_seed(0)
        vae = VAE(
            prior=pv.priors.StandardNormal(2),
            likelihood=pv.likelihoods.Gaussian(nn.Linear(2, 3)),
            guide=pv.guides.DiagonalGaussian(nn.Linear(3, 4), latent_dim=2),
        ).double()
        with ParameterStore().active():
            objective = BetaELBO(DReG(4), 0.5)
            svi = pv.SVI(
                vae.model,
                vae.guide,
                functools.partial(torch.optim.Adam, lr=0.01),
                objective,
                compile=compiled,
            )
            losses = []
            for i in range(4):
                objective.beta = 0.5 + 0.1 * i
                torch.manual_seed(i)
                losses.append(svi.step(hw.X))
            assert svi.refused is None
        out.append((losses, torch.cat([p.detach().flatten() for p in vae.parameters()])))
    assert out[0][0] == pytest.approx(out[1][0], rel=1e-6)  # beta is a float32 there
    torch.testing.assert_close(out[0][1], out[1][1], rtol=1e-5, atol=1e-6)


def test_first_step_makes_parameters_from_the_callers_noise():
    def guide(x):
        loc = pyro.param("loc", lambda: torch.randn(hw.L, dtype=F64))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1).expand([len(x)]))

    torch.manual_seed(11)
    expected = torch.randn(hw.L, dtype=F64)
    torch.manual_seed(11)
    svi = pyro.infer.SVI(hw.plain_model, guide, pyro.optim.Adam({"lr": 0.0}), IWAE(3))
    svi.step(hw.X)
    assert torch.equal(pyro.param("loc"), expected)
