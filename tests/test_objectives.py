"""Objectives: refused where they would be silently wrong, and right where they are not."""

import functools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import RenyiELBO, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.infer.inspect import get_dependencies
from torch import nn

import pyrovae as pv
from pyrovae.objectives import BetaELBO, FreeBits, check_objective
from pyrovae.programs import ParameterStore, inspect_program
from pyrovae.programs.checks.dependencies import mean_field_breaches

from . import handwritten as hw

F64 = torch.float64
ZERO = torch.zeros((), dtype=F64)


def check(model, guide, objective, x=hw.X, *context):
    check_objective(objective, inspect_program(model, guide, x, *context))


# Two levels: h2 ~ N(0, 1), h1 ~ N(h2, 1), x ~ N(h1, 1) -----------------------------------------

XS = torch.tensor([0.5, -2.0, 1.3], dtype=F64)


def two_levels(x):
    with pyro.plate("data", len(x)):
        h2 = pyro.sample("h2", dist.Normal(ZERO, 1.0))
        h1 = pyro.sample("h1", dist.Normal(h2, 1.0))
        pyro.sample("x", dist.Normal(h1, 1.0), obs=x)


def two_levels_evidence(x):
    return dist.Normal(ZERO, math.sqrt(3)).log_prob(x)


def bottom_up(x):
    """The exact posterior: h1 | x ~ N(2x/3, 2/3), h2 | h1 ~ N(h1/2, 1/2)."""
    with pyro.plate("data", len(x)):
        h1 = pyro.sample("h1", dist.Normal(2 * x / 3, math.sqrt(2 / 3)))
        pyro.sample("h2", dist.Normal(h1 / 2, math.sqrt(1 / 2)))


def top_down(x):
    """The exact posterior: h2 | x ~ N(x/3, 2/3), h1 | h2, x ~ N((h2 + x)/2, 1/2)."""
    with pyro.plate("data", len(x)):
        h2 = pyro.sample("h2", dist.Normal(x / 3, math.sqrt(2 / 3)))
        pyro.sample("h1", dist.Normal((h2 + x) / 2, math.sqrt(1 / 2)))


def repeated(elbo, model, guide, x, repeats=4000):
    """Mean and SE of the loss."""
    torch.manual_seed(0)
    objective = elbo(num_particles=repeats, vectorize_particles=True, max_plate_nesting=1)
    objective_one = elbo()
    losses = torch.tensor([objective_one.loss(model, guide, x) for _ in range(200)], dtype=F64)
    return objective.loss(model, guide, x), float(losses.std()) / math.sqrt(repeats)


def test_bottom_up_guide_under_mean_field():
    # The trap: for exact posteriors every ELBO is ln p(x), and Pyro's mean-field one is not.
    exact = -float(two_levels_evidence(XS).sum())
    assert Trace_ELBO().loss(two_levels, bottom_up, XS) == pytest.approx(exact, abs=1e-9)
    wrong, se = repeated(TraceMeanField_ELBO, two_levels, bottom_up, XS)
    assert abs(wrong - exact) > 10 * se + 0.1
    with pytest.raises(ValueError, match=r"'h1' is drawn from 'h2'|'h2' is drawn from 'h1'") as info:
        check(two_levels, bottom_up, TraceMeanField_ELBO(), XS)
    assert "TraceMeanField_ELBO" in str(info.value) and "Trace_ELBO" in str(info.value)
    check(two_levels, bottom_up, Trace_ELBO(), XS)
    for wrapped in (BetaELBO(TraceMeanField_ELBO(), 0.5), FreeBits(TraceMeanField_ELBO(), 0.1)):
        with pytest.raises(ValueError, match="mean-field condition"):
            check(two_levels, bottom_up, wrapped, XS)


def test_top_down_guide_under_mean_field():
    check(two_levels, top_down, TraceMeanField_ELBO(), XS)
    exact = -float(two_levels_evidence(XS).sum())
    assert Trace_ELBO().loss(two_levels, top_down, XS) == pytest.approx(exact, abs=1e-9)
    loss, se = repeated(TraceMeanField_ELBO, two_levels, top_down, XS)
    assert se > 1e-4 and abs(loss - exact) < 4 * se


def hidden_in_place(x):
    with pyro.plate("data", len(x)):
        h1 = pyro.sample("h1", dist.Normal(2 * x / 3, math.sqrt(2 / 3)))
        loc = torch.zeros(h1.shape, dtype=F64)
        with torch.no_grad():
            loc.numpy()[...] = h1.numpy() / 2
        pyro.sample("h2", dist.Normal(loc, math.sqrt(1 / 2)))


def hidden_in_items(x):
    with pyro.plate("data", len(x)):
        h1 = pyro.sample("h1", dist.Normal(2 * x / 3, math.sqrt(2 / 3)))
        loc = torch.tensor([v.item() / 2 for v in h1.flatten()], dtype=F64).reshape(h1.shape)
        pyro.sample("h2", dist.Normal(loc, math.sqrt(1 / 2)))


@pytest.mark.parametrize("guide", [hidden_in_place, hidden_in_items])
def test_hidden_dependencies_are_found(guide):
    try:
        tracked = get_dependencies(guide, (XS,))["prior_dependencies"]["h2"]
    except Exception:
        tracked = {}
    assert "h1" not in tracked, "Pyro's tracking alone does not see it"
    program = inspect_program(two_levels, guide, XS)
    assert mean_field_breaches(program) == [("h1", "h2")]
    with pytest.raises(ValueError, match="mean-field condition"):
        check_objective(TraceMeanField_ELBO(), program)


def test_independent_levels_keep_the_condition():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("h1", dist.Normal(x, 1.0))
            pyro.sample("h2", dist.Normal(x, 1.0))

    assert mean_field_breaches(inspect_program(two_levels, guide, XS)) == []
    state = torch.get_rng_state()
    check(two_levels, guide, TraceMeanField_ELBO(), XS)
    assert torch.equal(state, torch.get_rng_state())


# Scales, gradients, enumeration ----------------------------------------------------------------

EXACT = hw.plain_guide(False)


def test_scale_on_one_side():
    scale = poutine.scale(scale=0.5)
    for model, guide in ((scale(hw.plain_model), EXACT), (hw.plain_model, scale(EXACT))):
        for objective in (Trace_ELBO(), TraceMeanField_ELBO(), BetaELBO(Trace_ELBO(), 0.5)):
            with pytest.raises(ValueError, match="same scale of latent 'z'"):
                check(model, guide, objective)
    check(scale(hw.plain_model), scale(EXACT), Trace_ELBO())


def test_subsampling_on_one_side():
    idiom_two = hw.scaled_plate()
    with pytest.raises(ValueError, match=r"200|500|same scale"):
        check(idiom_two.model, EXACT, Trace_ELBO())
    with pytest.raises(ValueError, match="same scale"):
        check(hw.plain_model, idiom_two.exact, Trace_ELBO())
    check(idiom_two.model, idiom_two.exact, Trace_ELBO())
    idiom_one = hw.CASES["x[ind], size fixed"]()
    with pytest.raises(ValueError, match="one size in model and guide"):
        check(idiom_one.model, EXACT, Trace_ELBO())


def test_renyi_refuses_scales():
    check(hw.plain_model, EXACT, RenyiELBO(num_particles=2))
    for name in ("poutine.scale", "subsample_size=len(x)", "x[ind], size fixed"):
        case = hw.CASES[name]()
        with pytest.raises(ValueError, match="unit scales for RenyiELBO"):
            check(case.model, case.exact, RenyiELBO(num_particles=2))
        check(case.model, case.exact, Trace_ELBO())


def test_gradients_that_are_cut_off():
    loc = torch.zeros(hw.L, dtype=F64, requires_grad=True)

    class Cut(dist.Normal):
        def rsample(self, sample_shape=()):
            return super().rsample(sample_shape).detach()

    def guide_of(distribution):
        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", distribution(loc, 1.0).to_event(1).expand([len(x)]))

        return guide

    for objective in (Trace_ELBO(), TraceMeanField_ELBO()):
        with pytest.raises(ValueError, match="reparameterised draws at guide site 'z'"):
            check(hw.plain_model, guide_of(Cut), objective)
        check(hw.plain_model, guide_of(dist.Normal), objective)


def test_score_function_guides():
    class Score(dist.MultivariateNormal):
        has_rsample = False

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", Score(torch.zeros(len(x), hw.L, dtype=F64), torch.eye(hw.L, dtype=F64)))

    for objective in (TraceMeanField_ELBO(), RenyiELBO(num_particles=2)):
        with pytest.raises(ValueError, match="reparameterised guide"):
            check(hw.plain_model, guide, objective)
    check(hw.plain_model, guide, Trace_ELBO())
    with pytest.raises(ValueError, match="reparameterised guide for free bits"):
        FreeBits(Trace_ELBO(), 0.1).loss(hw.plain_model, guide, hw.X)


def test_enumeration_needs_its_objective():
    case = hw.enumerated_in_guide()
    with pytest.raises(ValueError, match="expected TraceEnum_ELBO"):
        check(case.model, case.exact, Trace_ELBO())
    check(case.model, case.exact, TraceEnum_ELBO(max_plate_nesting=1))


# KL weight and free bits -------------------------------------------------------------------------


class Pair(nn.Module):
    """Learned Gaussians, so that there are gradients to compare."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(hw.D, 2 * hw.L).double()

    def guide(self, x):
        pyro.module("net", self.net)
        with pyro.plate("data", len(x)):
            pyro.sample("z", self.q(x).to_event(1))

    def q(self, x):
        loc, raw = self.net(x).chunk(2, -1)
        return dist.Normal(loc, raw.exp())


@pytest.fixture
def pair():
    torch.manual_seed(0)
    return Pair()


def by_hand(pair, x, analytic, seed, full_size=0):
    """(E ln p(x | z), KL) on the noise that the objective will draw (a plate draws its subsample first)."""
    torch.manual_seed(seed)
    torch.randperm(full_size)
    q = pair.q(x)
    z = q.rsample()
    p = dist.Normal(torch.zeros_like(z), 1.0)
    kl = torch.distributions.kl_divergence(q, p) if analytic else q.log_prob(z) - p.log_prob(z)
    return hw.likelihood(z).log_prob(x).sum(), kl.sum()


def gradients(pair, loss):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(pair.parameters()))])


@pytest.mark.parametrize("base", [Trace_ELBO, TraceMeanField_ELBO])
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0, 4.0])
def test_beta(pair, base, beta):
    objective = BetaELBO(base(), beta)
    torch.manual_seed(3)
    loss = objective.loss(hw.plain_model, pair.guide, hw.X)
    reconstruction, kl = by_hand(pair, hw.X, base is TraceMeanField_ELBO, 3)
    expected = beta * kl - reconstruction
    assert loss == pytest.approx(expected.item(), rel=1e-12)
    torch.manual_seed(3)
    assert objective.loss_and_grads(hw.plain_model, pair.guide, hw.X) == pytest.approx(loss)
    got = torch.cat([p.grad.flatten() for p in pair.parameters()])
    torch.testing.assert_close(got, gradients(pair, expected))
    assert float(kl) > 0.1
    assert repr(objective) == f"BetaELBO({base.__name__}, beta={beta:g})"


def test_beta_beside_subsampling(pair):
    """beta multiplies the KL term, and leaves the scale of the plate alone."""
    case = hw.scaled_plate()

    def guide(x):
        with pyro.plate("data", 1000, subsample_size=len(x)):
            pyro.sample("z", pair.q(x).to_event(1))

    torch.manual_seed(3)
    loss = BetaELBO(Trace_ELBO(), 0.3).loss(case.model, guide, hw.X)
    reconstruction, kl = by_hand(pair, hw.X, False, 3, full_size=1000)
    assert loss == pytest.approx(1000 / hw.N * float(0.3 * kl - reconstruction))


@pytest.mark.parametrize("base", [Trace_ELBO, TraceMeanField_ELBO])
def test_free_bits(pair, base):
    reconstruction, kl = by_hand(pair, hw.X, base is TraceMeanField_ELBO, 3)
    for bits in (0.0, 0.5 * float(kl) / hw.N, 2 * float(kl) / hw.N):
        torch.manual_seed(3)
        pair.zero_grad()
        loss = FreeBits(base(), bits).loss_and_grads(hw.plain_model, pair.guide, hw.X)
        below = float(kl) < bits * hw.N
        expected = -reconstruction + (bits * hw.N if below else kl)
        assert loss == pytest.approx(expected.item(), rel=1e-12)
        got = torch.cat([p.grad.flatten() for p in pair.parameters()])
        # Below its allowance the KL has no gradient: what is left is that of the reconstruction.
        torch.testing.assert_close(got, gradients(pair, expected if not below else -reconstruction))
        reconstruction, kl = by_hand(pair, hw.X, base is TraceMeanField_ELBO, 3)


def test_free_bits_of_each_site():
    """A site at its allowance does not lend it to another."""
    wide = dist.Normal(ZERO, 1.0)

    def guide(x):
        with pyro.plate("data", len(x)):
            h2 = pyro.sample("h2", dist.Normal(3 + 0 * x, 1.0))  # KL 4.5 against N(0, 1)
            pyro.sample("h1", dist.Normal(h2 + 0.1, 1.0))  # KL 0.005

    torch.manual_seed(0)
    loss = FreeBits(TraceMeanField_ELBO(), 1.0).loss(two_levels, guide, XS)
    torch.manual_seed(0)
    h2 = dist.Normal(3 + 0 * XS, 1.0).rsample()
    h1 = dist.Normal(h2 + 0.1, 1.0).rsample()
    by_hand = (4.5 + 1.0) * len(XS) - float(dist.Normal(h1, wide.scale).log_prob(XS).sum())
    assert loss == pytest.approx(by_hand)


def test_free_bits_and_many_particles(pair):
    """Particles are averaged, vectorised or not."""
    for options in ({}, {"vectorize_particles": True, "max_plate_nesting": 1}):
        torch.manual_seed(0)
        loss = FreeBits(Trace_ELBO(num_particles=400, **options), 0.0)
        plain = Trace_ELBO(num_particles=400, **options)
        value = loss.loss(hw.plain_model, pair.guide, hw.X)
        torch.manual_seed(0)
        assert value == pytest.approx(plain.loss(hw.plain_model, pair.guide, hw.X), rel=1e-9)


def test_free_bits_and_beta(pair):
    torch.manual_seed(3)
    loss = BetaELBO(FreeBits(TraceMeanField_ELBO(), 100.0), 0.3).loss(hw.plain_model, pair.guide, hw.X)
    reconstruction, _ = by_hand(pair, hw.X, True, 3)
    assert loss == pytest.approx(0.3 * 100 * hw.N - float(reconstruction))


def test_free_bits_refuse_auxiliary_sites():
    case = hw.auxiliary()
    with pytest.raises(ValueError, match=r"sites are the model's for free bits, got \['noise'\]"):
        FreeBits(Trace_ELBO(), 0.1).loss(case.model, case.exact, hw.X)
    guide = AutoNormal(hw.plain_model)
    guide(hw.X)
    Trace_ELBO().loss(hw.plain_model, guide, hw.X)


def test_both_objectives_agree(pair):
    first, se1 = repeated(Trace_ELBO, hw.plain_model, pair.guide, hw.X)
    second, se2 = repeated(TraceMeanField_ELBO, hw.plain_model, pair.guide, hw.X)
    assert abs(first - second) < 4 * math.hypot(se1, se2)
    e = pv.evidence(hw.plain_model, pair.guide, hw.X, estimators=[pv.ELBO(4000)])["ELBO"]
    assert abs(first / hw.N + e.log_evidence) < 4 * math.hypot(se1 / hw.N, e.se_mc)


def test_options_out_of_range():
    for options in ({"beta": -1.0}, {"free_bits": -0.1}):
        with pytest.raises(ValueError, match="expected"):
            pv.fit(hw.plain_model, EXACT, hw.X, epochs=1, **options)
    for options in ({"beta": 0.5}, {"free_bits": 0.1}):
        with pytest.raises(ValueError, match=r"KL term|free bits"):
            pv.fit(hw.plain_model, EXACT, hw.X, epochs=1, objective=RenyiELBO(num_particles=2), **options)


# SVI -----------------------------------------------------------------------------------------------


def weights(pair):
    return torch.cat([p.detach().flatten() for p in pair.parameters()]).clone()


def run(make_svi, steps=5):
    """Losses and weights of a few steps from the same start with the same noise."""
    torch.manual_seed(0)
    pair = Pair()
    with ParameterStore().active():
        svi = make_svi(pair)
        losses = []
        for i in range(steps):
            torch.manual_seed(i)
            losses.append(svi.step(hw.X))
        torch.manual_seed(99)
        losses.append(svi.evaluate_loss(hw.X))
    return losses, weights(pair)


def test_a_step_is_that_of_pyro():
    def of(svi, loss):
        return run(lambda pair: svi(hw.plain_model, pair.guide, pyro.optim.Adam({"lr": 0.01}), loss))

    def surrogate(model, guide, *args):
        return Trace_ELBO().differentiable_loss(model, guide, *args)

    for loss in (Trace_ELBO(), TraceMeanField_ELBO(), surrogate):
        mine, theirs = of(pv.SVI, loss), of(pyro.infer.SVI, loss)
        assert mine[0] == theirs[0] and torch.equal(mine[1], theirs[1])


def test_torch_adam_is_that_of_pyro():
    """One optimizer over all parameters gives what one per parameter gives."""
    adam = functools.partial(torch.optim.Adam, lr=0.01)
    reference = run(
        lambda pair: pyro.infer.SVI(
            hw.plain_model, pair.guide, pyro.optim.PyroOptim(torch.optim.Adam, {"lr": 0.01}), Trace_ELBO()
        )
    )
    start = run(lambda pair: pv.SVI(hw.plain_model, pair.guide, adam, Trace_ELBO()), steps=0)
    for optim in (adam, lambda p: torch.optim.Adam(p, lr=0.01)):
        got = run(lambda pair, o=optim: pv.SVI(hw.plain_model, pair.guide, o, Trace_ELBO()))
        assert got[0] == pytest.approx(reference[0], rel=1e-12)
        torch.testing.assert_close(got[1], reference[1], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(start[1], reference[1], atol=0.02)
    given = run(
        lambda pair: pv.SVI(
            hw.plain_model, pair.guide, torch.optim.Adam(pair.parameters(), lr=0.01), Trace_ELBO()
        )
    )
    torch.testing.assert_close(given[1], reference[1], rtol=1e-12, atol=1e-12)


def test_optimizer_without_the_parameters(pair):
    other = torch.optim.Adam([pair.net.bias], lr=0.01)
    svi = pv.SVI(hw.plain_model, pair.guide, other, Trace_ELBO())
    with pytest.raises(ValueError, match=r"without 1 of them .*\(4, 3\)"):
        svi.step(hw.X)
    for bad in (None, {"lr": 1}, "adam"):
        with pytest.raises(TypeError, match="optimizer"):
            pv.SVI(hw.plain_model, pair.guide, bad, Trace_ELBO())
    svi = pv.SVI(hw.plain_model, pair.guide, lambda p: "nothing", Trace_ELBO())
    with pytest.raises(TypeError, match="torch optimizer"):
        svi.step(hw.X)


def test_parameters_that_come_later_join():
    calls = []

    def guide(x):
        loc = pyro.param("loc", torch.zeros(hw.L, dtype=F64))
        if calls:
            loc = loc + pyro.param("late", torch.zeros(hw.L, dtype=F64))
        calls.append(1)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, 1.0).to_event(1).expand([len(x)]))

    svi = pv.SVI(hw.plain_model, guide, functools.partial(torch.optim.SGD, lr=1e-3), Trace_ELBO())
    svi.step(hw.X)
    assert len(svi.optimizer.param_groups) == 1
    svi.step(hw.X)
    assert len(svi.optimizer.param_groups) == 2
    assert (pyro.param("late") != 0).all() and pyro.param("loc").grad is None


def test_what_pyro_computes_wrongly_is_refused_by_svi_too():
    """A Delta's density is left out of the closed KL; a masked law is summed as 1 over its values."""
    x = torch.tensor([0.3, -0.5, 1.0])

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        loc = pyro.param("loc", torch.tensor(0.5))
        with pyro.plate("data", len(x)):
            noise = pyro.sample("noise", dist.Normal(0.0, 1.0), infer={"is_auxiliary": True})
            pyro.sample("z", dist.Delta(loc * x + 0.5**0.5 * noise, log_density=torch.full_like(x, 0.34657)))

    optim = pyro.optim.Adam({"lr": 1e-3})
    with pytest.raises(ValueError, match="Delta sites"):
        pv.SVI(model, guide, optim, loss=TraceMeanField_ELBO()).step(x)
    pv.SVI(model, guide, optim, loss=Trace_ELBO()).step(x)

    mask = torch.tensor([True, False, True])

    def mixture(x):
        p = pyro.param("p", torch.tensor([0.6, 0.4]), constraint=dist.constraints.simplex)
        with pyro.plate("data", len(x)):
            c = pyro.sample("c", dist.Categorical(p).mask(mask), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(torch.tensor([-1.0, 1.5])[c], 1.0).mask(mask), obs=x)

    with pytest.raises(ValueError, match=r"without \.mask\(\)"):
        pv.SVI(mixture, lambda x: None, optim, loss=TraceEnum_ELBO(max_plate_nesting=1)).step(x)
