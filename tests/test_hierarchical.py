"""Hierarchical VAEs: exact checks on linear-Gaussian chains, guides, validity, levels, scripts."""

import functools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import nn

import pyrovae as pv
from pyrovae import plots
from pyrovae.inference.options.building import build
from pyrovae.inference.options.options import ModelOptions
from pyrovae.models import ground_truths as gt
from pyrovae.models.composing.architectures import Perceptrons
from pyrovae.models.composing.levels import compose_hierarchical, residual
from pyrovae.models.composing.vae import vamp
from pyrovae.models.hierarchical import HierarchicalVAE
from pyrovae.models.levels.guides import BottomUp, TopDown, merged
from pyrovae.models.levels.paths import GaussianConditional, Markov, Stream
from pyrovae.objectives import check_objective
from pyrovae.programs import ParameterStore, inspect_program, seeded
from pyrovae.training import level_report, level_table

F64 = torch.float64
DEPTHS = (2, 3, 5)
SMALL = Perceptrons((16,))


@pytest.fixture(scope="module")
def bits():
    return pv.data.load("digits", binarise="static")


def small(data, widths=(6, 5, 4), seed=0, **options):
    with seeded(seed, "weights"):
        return compose_hierarchical(data, SMALL, widths, between=residual(12), **options)


# Linear-Gaussian chains ----------------------------------------------------------------------------


class Affine(nn.Module):
    """N(a z, s^2), element by element: a part for one level, its width given once."""

    def __init__(self, a, s, latent_dim):
        super().__init__()
        self.a, self.s, self.latent_dim = a, s, latent_dim

    def forward(self, z):
        return dist.Normal(self.a * z, self.s * torch.ones_like(z)).to_event(1)


class Unit(nn.Module):
    """N(0, I) in double precision."""

    def __init__(self, latent_dim):
        super().__init__()
        self.latent_dim = latent_dim

    def forward(self):
        return dist.Normal(torch.zeros(self.latent_dim, dtype=F64), 1.0).to_event(1)


class Chain:
    """h_T ~ N(0, I), h_{t-1} ~ N(a_t h_t, 1/2), x ~ N(a_1 h_1, 1/2) for each element: all is known."""

    def __init__(self, levels, width=1.0, num_data=8, dim=2):
        random = torch.Generator().manual_seed(levels)
        self.levels, self.dim, self.width, self.noise = levels, dim, width, 0.5
        self.a = [float(v) for v in 0.6 + 0.5 * torch.rand(levels, generator=random, dtype=F64)]
        self.variances = [1.0]  # of x, h_1, ..., h_T
        for a in reversed(self.a):
            self.variances.insert(0, a**2 * self.variances[0] + self.noise)
        self.x = math.sqrt(self.variances[0]) * torch.randn(num_data, dim, generator=random, dtype=F64)
        law = dist.Normal(torch.zeros(dim, dtype=F64), math.sqrt(self.variances[0])).to_event(1)
        self.log_evidence = law.log_prob(self.x)

    def vae(self, top_down):
        s = math.sqrt(self.noise)
        path = Markov([Affine(a, s, self.dim) for a in self.a[1:]])
        q = self.top_down() if top_down else self.bottom_up()
        return HierarchicalVAE(Unit(self.dim), path, Affine(self.a[0], s, self.dim), q)

    def bottom_up(self):
        """The posterior's Markov factors q(h_t | h_{t-1}), `width` times as wide."""
        parts = []
        for t in range(1, self.levels + 1):
            gain = self.variances[t] * self.a[t - 1] / self.variances[t - 1]
            left = self.variances[t] - gain * self.a[t - 1] * self.variances[t]
            parts.append(Affine(gain, self.width * math.sqrt(left), self.dim))
        return BottomUp(parts)

    def top_down(self):
        """Heads are p(x | h_t) as a function of h_t, `width` times as wide; the top one the posterior itself."""
        encoders, heads = [], []
        gain, noise = 1.0, 0.0
        for t, a in enumerate(self.a, 1):
            noise += gain**2 * self.noise
            gain *= a  # x | h_t ~ N(gain h_t, noise)
            a_up, s2 = 1 / gain, noise / gain**2
            if t == self.levels:
                a_up, s2 = a_up / (1 + s2), s2 / (1 + s2)
            encoders.append(nn.Identity())
            heads.append(Affine(a_up, self.width * math.sqrt(s2), self.dim))
        return TopDown(encoders, heads)


@pytest.mark.parametrize("top_down", [True, False], ids=["top-down", "bottom-up"])
@pytest.mark.parametrize("levels", DEPTHS)
def test_with_the_exact_guide_every_weight_is_the_evidence(levels, top_down):
    chain = Chain(levels)
    vae = chain.vae(top_down)
    lw = pv.log_weights(vae.model, vae.guide, chain.x, num_samples=7)
    torch.testing.assert_close(lw, chain.log_evidence.expand_as(lw), rtol=0, atol=1e-10)


@pytest.mark.parametrize("top_down", [True, False], ids=["top-down", "bottom-up"])
@pytest.mark.parametrize("levels", DEPTHS)
def test_is_and_ais_meet_the_gaussian_marginal(levels, top_down):
    chain = Chain(levels, width=1.2)
    vae = chain.vae(top_down)
    estimators = [pv.ELBO(50), pv.IS(500), pv.AIS(5, 8, leapfrog=3)]
    ev = pv.evidence(vae.model, vae.guide, chain.x, estimators=estimators)
    truth = float(chain.log_evidence.mean())
    for name in ("IS", "AIS"):
        e = ev[name]
        assert 1e-5 < e.se_mc < 0.2
        assert abs(float(e.per_datum.mean()) - truth) < 4 * e.se_mc + 1e-3, name
    assert float(ev["ELBO"].per_datum.mean()) < truth - 1e-3  # the guide is not the posterior


@pytest.mark.parametrize("levels", DEPTHS)
def test_full_matrices_bottom_up(levels):
    truth = gt.hierarchical_linear_gaussian(levels, 6)
    ev = pv.evidence(truth.model, truth.guide, truth.x, estimators=[pv.IS(500), pv.AIS(5, 8, leapfrog=3)])
    for name in ("IS", "AIS"):
        error = float((ev[name].per_datum - truth.log_evidence).mean())
        assert abs(error) < 4 * ev[name].se_mc + 1e-3, name


@pytest.mark.parametrize("levels", DEPTHS)
def test_mean_field_is_exact_for_the_ladder_and_wrong_bottom_up(levels):
    """MATH.md 5: the trap, and the guide that it does not catch."""
    chain = Chain(levels)
    x, truth = chain.x.repeat(400, 1), float(chain.log_evidence.mean())
    found = {}
    for top_down in (True, False):
        vae = chain.vae(top_down)
        for loss in (Trace_ELBO(), TraceMeanField_ELBO()):
            with seeded(0, "noise"):
                found[top_down, type(loss)] = -loss.loss(vae.model, vae.guide, x) / len(x)
    # One draw a datum; with the exact guide Trace_ELBO has no noise at all.
    assert found[True, Trace_ELBO] == pytest.approx(truth, abs=1e-9)
    assert found[False, Trace_ELBO] == pytest.approx(truth, abs=1e-9)
    assert found[True, TraceMeanField_ELBO] == pytest.approx(truth, abs=0.1)
    assert found[False, TraceMeanField_ELBO] < truth - 0.15


def test_merge_is_the_product_of_two_gaussians():
    up, down = (
        dist.Normal(torch.tensor([1.0]), 0.5).to_event(1),
        dist.Normal(torch.tensor([-2.0]), 2.0).to_event(1),
    )
    both = merged(up, down)
    z = torch.linspace(-3, 3, 7).unsqueeze(-1)
    difference = up.log_prob(z) + down.log_prob(z) - both.log_prob(z)
    torch.testing.assert_close(difference, difference[:1].expand(7))
    with pytest.raises(ValueError, match="expected Gaussian levels"):
        merged(up, dist.Laplace(torch.zeros(1), 1.0).to_event(1))


# The program ---------------------------------------------------------------------------------------

KINDS = {
    "top-down": {},
    "bottom-up": {"top_down": False},
    "stream": {"stream": 10},
    "stream, bottom-up": {"stream": 10, "top_down": False},
    "one level": {"widths": (5,)},
}


@pytest.mark.parametrize("kind", KINDS)
def test_validity_check(bits, kind):
    vae = small(bits, **KINDS[kind])
    program = inspect_program(vae.model, vae.guide, bits.train[:8])
    assert program.vectorised
    check_objective(Trace_ELBO(), program)
    if "bottom-up" in kind:
        with pytest.raises(ValueError, match=r"try Trace_ELBO, or write the guide top-down"):
            check_objective(TraceMeanField_ELBO(), program)
    else:
        check_objective(TraceMeanField_ELBO(), program)


def test_ladder_and_model_share_their_path(bits):
    store = ParameterStore()
    vae = small(bits)
    model, guide = store.bind(vae.model), store.bind(vae.guide)
    inspect_program(model, guide, bits.train[:4])
    with store.active():
        names = set(pyro.get_param_store().keys())
    path = {f"path$$${n}" for n, _ in vae.path.named_parameters()}
    assert path and path <= names
    assert len(names) == sum(1 for _ in vae.parameters())


def test_gradients_reach_every_parameter_of_twelve_levels(bits):
    vae = small(bits, widths=(4,) * 12)
    x = bits.train[:64]
    with seeded(0, "train"):
        svi = pv.SVI(
            vae.model, vae.guide, functools.partial(torch.optim.Adam, lr=3e-3), Trace_ELBO(), compile=False
        )
        losses = [svi.step(x) / len(x) for _ in range(60)]
        Trace_ELBO().loss_and_grads(vae.model, vae.guide, x)
    dead = [n for n, p in vae.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not dead
    assert sum(losses[-10:]) / 10 < losses[0] - 2


def test_a_new_chain_has_unit_variance_at_every_level(bits):
    vae = small(bits, widths=(4,) * 12)
    drawn = pv.programs.simulate(vae.model, 2000, bits.train[:1])
    for value in drawn.latents.values():
        assert abs(float(value.var()) - 1) < 0.15


def test_compiled_step_and_weights_equal_eager(bits, interpreted):
    """Of the graph; code for two levels is generated in tests/test_dropin.py."""
    vae = small(bits, widths=(5, 4))
    x = bits.train[:16]
    svi = pv.SVI(
        vae.model, vae.guide, functools.partial(torch.optim.SGD, lr=0.0), TraceMeanField_ELBO(), compile=True
    )
    with seeded(0, "eager"):
        eager = svi.step(x)
    svi.step(x)
    with seeded(0, "eager"):
        compiled = svi.step(x)
    assert svi.refused is None and svi.compiled_objective is not None
    assert compiled == pytest.approx(eager, rel=1e-5)


def test_fit_with_vamp_prior_free_bits_and_warm_up(bits):
    vae = small(bits, prior=vamp(bits, 7))
    fit = pv.fit(
        vae.model,
        vae.guide,
        bits,
        epochs=3,
        free_bits=0.3,
        beta=pv.Warmup(2),
        objective=TraceMeanField_ELBO(),
    )
    last = fit.history[-1]
    assert {"kl_z1", "kl_z2", "kl_z3"} <= set(last) and math.isfinite(last["elbo"])
    assert last["kl"] == pytest.approx(sum(last[f"kl_z{t}"] for t in (1, 2, 3)), rel=1e-6)
    with pytest.raises(ValueError, match="try a top-down guide"):
        pv.log_weights(*_pair(small(bits, prior=vamp(bits, 7), top_down=False)), bits.test[:4], num_samples=2)


def _pair(vae):
    return vae.model, vae.guide


# Levels --------------------------------------------------------------------------------------------


def test_level_report_of_known_levels():
    """KL against closed forms; a level that the guide leaves at its prior has collapsed."""
    n = 2000
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))

    def model(x):
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("idle", dist.Normal(top, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(top, 1.0).to_event(1), obs=x)

    def guide(x):
        loc = torch.cat([x[..., :2], torch.zeros_like(x[..., :1])], -1)
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", dist.Normal(loc, 0.5).to_event(1))
            pyro.sample("idle", dist.Normal(top, 1.0).to_event(1))

    top, idle = level_report(model, guide, x, num_samples=32)
    exact = 0.5 * (x[:, :2].square().sum(-1) + 3 * (0.25 - 1 - math.log(0.25))).mean()
    assert abs(top.kl - float(exact)) < 4 * top.se
    assert (top.site, top.width, top.active_units, top.collapsed) == ("top", 3, 2, False)
    # E[idle | x] follows x through top: the KL says that the level itself adds nothing.
    assert idle.collapsed and abs(idle.kl) < 1e-6 and top.share == pytest.approx(1)
    assert "| idle | 3 |" in level_table([top, idle]) and "collapsed" in level_table([top, idle])
    with pytest.raises(ValueError, match="at least 2"):
        level_report(model, guide, x, num_samples=1)


def test_level_report_does_not_take_noise_for_activity():
    """q(low | high) = N(high, 1) with high ~ N(0, 1) whatever x is: nothing depends on x."""

    def model(x):
        with pyro.plate("data", len(x)):
            high = pyro.sample("high", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("low", dist.Normal(high, 0.1).to_event(1))
            pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            high = pyro.sample("high", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("low", dist.Normal(high, 0.1).to_event(1))

    levels = level_report(model, guide, torch.zeros(5000, 2), num_samples=16)
    assert [v.active_units for v in levels] == [0, 0]


def test_pictures_of_levels(bits):
    vae = small(bits)
    x = bits.test[:6]
    shape = bits.spec.image_shape
    ax = plots.plot_levels(vae.model, vae.guide, x, shape)
    assert [t.get_text() for t in ax.get_yticklabels()] == [
        "data",
        "z3 to z1 kept",
        "z3 to z2 kept",
        "z3 kept",
    ]
    ax = plots.plot_level_samples(vae.model, x, shape, num=5)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["all free", "z3 kept", "z3 to z2 kept"]
    levels = level_report(vae.model, vae.guide, bits.test[:50])
    ax = plots.plot_level_kl(levels)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["z3", "z2", "z1"]
    assert [p.get_width() for p in ax.patches] == [v.kl for v in levels]


# Bad input -----------------------------------------------------------------------------------------


def test_bad_input(bits):
    for widths in ((), (4, 0)):
        with pytest.raises(ValueError, match="at least one level, each of width >= 1"):
            small(bits, widths=widths)
    vae = small(bits)
    with pytest.raises(ValueError, match=r"one number of levels, got 1 and 3"):
        HierarchicalVAE(vae.prior, Markov(), vae.likelihood, vae.q)
    with pytest.raises(ValueError, match=r"top level's width 4, got 9"):
        HierarchicalVAE(pv.priors.StandardNormal(9), vae.path, vae.likelihood, vae.q)
    with pytest.raises(ValueError, match="one head for each of 1 encoders"):
        TopDown([nn.Identity()], [])
    with pytest.raises(ValueError, match="at least one level"):
        BottomUp([])
    with pytest.raises(ValueError, match="stream of width >= 1"):
        Stream((4, 3), 0, residual(8))
    with pytest.raises(ValueError, match="total width"):
        GaussianConditional(pv.networks.MLP(4, (8,)), 4, 3)(torch.zeros(5, 7))


OPTIONS = {
    "levels": {"levels": 0},
    "one width for each of 2": {"levels": 2, "widths": (4, 4, 4)},
    "expected --guide top-down": {"guide": "flow"},
    "no --latent-dim": {"latent_dim": 4},
}


@pytest.mark.parametrize("message", OPTIONS)
def test_bad_options(bits, message):
    with pytest.raises(ValueError, match=message):
        build(ModelOptions(model="hierarchical", **OPTIONS[message]), bits, 0)
    with pytest.raises(ValueError, match="try --model hierarchical"):
        build(ModelOptions(guide="top-down"), bits, 0)


def test_options_build_what_they_say(bits):
    make = functools.partial(build, data=bits, seed=0)
    vae = make(ModelOptions(model="hierarchical", levels=5)).model.__self__
    assert [h.latent_dim for h in vae.q.heads] == [64, 32, 16, 8, 8] and isinstance(vae.path, Markov)
    vae = make(ModelOptions(model="hierarchical", widths=(6, 3), guide="bottom-up", stream=9, prior="vamp"))
    vae = vae.model.__self__
    assert isinstance(vae.q, BottomUp) and isinstance(vae.path, Stream) and vae.num_levels == 2
    assert isinstance(vae.prior, pv.priors.VampPrior)
    convolutional = make(ModelOptions(model="hierarchical", widths=(6, 3), network="conv", channels=(4,)))
    assert math.isfinite(Trace_ELBO().loss(*convolutional, bits.train[:4]))
