"""Training: programs that subsample, where data come from, and what the first step looks at."""

import contextlib
import functools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormalMessenger
from torch import nn

import pyrovae as pv
from pyrovae.training.batches.sources import Source

from .training_pair import F64, VALID, L, Pair, X, data

# Programs that subsample, and sources --------------------------------------------------------------


@pytest.mark.parametrize("total", [50, 1000], ids=["x[ind]", "more than are given"])
def test_subsampling_programs_train(total):
    pair = Pair()

    def model(x):
        pyro.module("decoder", pair.decoder)
        with pyro.plate("data", total, subsample_size=8 if total == 50 else len(x)) as ind:
            z = pyro.sample("z", dist.Normal(torch.zeros(L, dtype=F64), 1.0).to_event(1))
            obs = x[ind] if total == 50 else x
            pyro.sample("x", dist.Normal(pair.decoder(z), 1.0).to_event(1), obs=obs)

    def guide(x):
        pyro.module("encoder", pair.encoder)
        with pyro.plate("data", total, subsample_size=8 if total == 50 else len(x)) as ind:
            loc, raw = pair.encoder(x[ind] if total == 50 else x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))

    # Validation data of another size than the number in the program.
    fit = pv.fit(model, guide, X, valid=VALID, epochs=15, batch_size=10, lr=0.02)
    assert fit.history[-1]["valid_elbo"] > fit.history[0]["valid_elbo"] + 0.5
    assert fit.history[-1]["step"] == 15 * (7 if total == 50 else 5)
    assert abs(fit.history[-1]["loss"] + fit.history[-1]["elbo"]) < 2, "losses are per datum"


def test_subsampling_programs_have_all_their_data_checked():
    x = torch.zeros(40, 2)
    x[37] = 0.5

    def model(x):
        with pyro.plate("data", len(x), subsample_size=3) as ind:
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=z).to_event(1), obs=x[ind])

    def guide(x):
        with pyro.plate("data", len(x), subsample_size=3) as ind:
            pyro.sample("z", dist.Normal(torch.zeros(len(ind), 2), 1.0).to_event(1))

    with pytest.raises(ValueError, match="support of Bernoulli"):
        pv.fit(model, guide, x, epochs=1)


def test_sources():
    for bad, error in (
        (X.numpy(), TypeError),
        ([1.0, 2.0], TypeError),
        ((), TypeError),
        (X[:0], ValueError),
        ((X, X[:3]), ValueError),
        (torch.full((3, 2), math.inf), ValueError),
    ):
        with pytest.raises(error, match="expected"):
            Source(bad)
    with pytest.raises(ValueError, match="N >= 1"):
        Source(X, X[:0])
    source = Source((X, X[:, 0]), (VALID, VALID[:, 0]))
    assert len(source.train) == len(source.valid) == 2 and source.epoch(3, 0) is source.train


class Redrawn:
    """As a data set under dynamic binarisation."""

    def __init__(self):
        self.train, self.valid, self.asked = X, VALID, []

    def epoch(self, epoch, seed=None):
        self.asked.append((epoch, seed))
        return X + epoch


def test_data_sets_are_drawn_afresh_each_epoch():
    drawn, seen = Redrawn(), []
    pair = Pair()

    def model(x):
        seen.append(float(x.mean()))
        pair.model(x)

    t = pv.Trainer(model, pair.guide, drawn, batch_size=50, seed=5)
    assert t.valid_program is not None
    seen.clear()
    for _ in range(3):
        t.step()
    assert drawn.asked == [(0, 5), (1, 5), (2, 5)]
    assert seen == pytest.approx([float(X.mean()) + e for e in range(3)])


def test_each_epoch_sees_every_datum_once_in_an_order_of_its_own():
    seen, pair = [], Pair()

    def model(x):
        seen.extend(x[:, 0].tolist())
        pair.model(x)

    t = pv.Trainer(model, pair.guide, X, batch_size=16)
    orders = []
    for _ in range(2):
        seen.clear()
        for _ in range(t.batches_per_epoch):
            t.step()
        assert sorted(seen) == sorted(X[:, 0].tolist())
        orders.append(list(seen))
    assert orders[0] != orders[1] and t.batches_per_epoch == 4


def test_pyro_optimizers_that_look_names_up():
    asked = []

    def options(name):
        asked.append(name)
        return {"lr": 0.02 if name.startswith("encoder") else 0.01}

    pair = Pair()
    fit = pv.fit(pair.model, pair.guide, X, epochs=2, optim=pyro.optim.Adam(options))
    assert set(asked) == {n.replace("$$$", ".") for n in fit.store.unconstrained()} and math.isnan(
        fit.history[0]["lr"]
    )


def test_objectives_are_checked():
    def bottom_up(x):
        with pyro.plate("data", len(x)):
            a = pyro.sample("a", dist.Normal(x[:, 0], 1.0))
            pyro.sample("b", dist.Normal(a, 1.0))

    def model(x):
        with pyro.plate("data", len(x)):
            b = pyro.sample("b", dist.Normal(torch.zeros((), dtype=F64), 1.0))
            a = pyro.sample("a", dist.Normal(b, 1.0))
            pyro.sample("x", dist.Normal(a.unsqueeze(-1), 1.0).to_event(1), obs=x)

    with pytest.raises(ValueError, match="mean-field condition"):
        pv.fit(model, bottom_up, X[:, :1], epochs=1, objective=TraceMeanField_ELBO())


# The first step ------------------------------------------------------------------------------------


class Positives(Pair):
    """Data above 0 under a Gamma law whose shape is above 1: a zero has no density, though the support has it."""

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(L, dtype=F64), 1.0).to_event(1))
            rate = nn.functional.softplus(self.decoder(z)) + 0.1
            pyro.sample("x", dist.Gamma(2.0, rate).to_event(1), obs=x)


def test_a_datum_without_a_density_is_named_before_training():
    pair, x = Positives(), data().abs() + 0.1
    before = [p.clone() for p in pair.parameters()]
    pv.fit(pair.model, pair.guide, x, epochs=1)
    x[17, 2] = 0.0
    with pytest.raises(ValueError, match=r"ln p\(x\) = -inf at x = 0 under Gamma.*data\[17\]"):
        pair = Positives()
        pv.fit(pair.model, pair.guide, x, epochs=1)
    assert all(torch.equal(p, q) for p, q in zip(before, pair.parameters(), strict=True))


class Overflows(Pair):
    """A guide whose scale overflows in training alone."""

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        loc, raw = self.encoder(x).chunk(2, -1)
        with pyro.plate("data", len(x)):
            scale = (raw + 2000.0 * self.training * (x.sum(-1, keepdim=True) > 1e3)).exp()
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))


@pytest.mark.slow
@pytest.mark.parametrize("compile", [False, True])
def test_a_loss_that_is_not_finite_at_the_first_step_names_its_site(compile):
    pair, x = Overflows().train(), data()
    x[5] = 300.0
    # Pyro's validation, under which an eager first step runs, says it in its own words.
    said = (
        r"step 0.*ln p\(\w+\) = -?(inf|nan).*data\[5\]" if compile else "parameter loc .* distribution Normal"
    )
    with pytest.raises(FloatingPointError if compile else ValueError, match=said) as error:
        pv.fit(pair.model, pair.guide, x, epochs=1, batch_size=50, compile=compile)
    assert "learning rate" not in str(error.value)
    assert all(p.isfinite().all() for p in pair.parameters())


def test_a_bottom_up_guide_is_refused_at_the_first_step_of_svi():
    def model(x):
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", dist.Normal(0.0, 1.0))
            z = pyro.sample("z", dist.Normal(top, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def bottom_up(x):
        a = pyro.param("a", torch.tensor(0.5))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(a * x, 1.0))
            pyro.sample("top", dist.Normal(a * z, 1.0))

    def top_down(x):
        a = pyro.param("a", torch.tensor(0.5))
        with pyro.plate("data", len(x)):
            top = pyro.sample("top", dist.Normal(a * x, 1.0))
            pyro.sample("z", dist.Normal(a * top, 1.0))

    x = torch.randn(20, generator=torch.Generator().manual_seed(0))
    for objective in (TraceMeanField_ELBO(), pv.objectives.BetaELBO(TraceMeanField_ELBO(), 0.5)):
        pyro.clear_param_store()
        svi = pv.SVI(model, bottom_up, pyro.optim.Adam({"lr": 0.1}), objective)
        with pytest.raises(ValueError, match=r"mean-field condition.*'top' is drawn from 'z'"):
            svi.step(x)
        assert float(pyro.param("a")) == 0.5
    losses = []
    for make in (pyro.infer.SVI, pv.SVI):  # a guide that is well takes Pyro's own steps
        pyro.clear_param_store()
        torch.manual_seed(3)
        svi = make(model, top_down, pyro.optim.Adam({"lr": 0.1}), TraceMeanField_ELBO())
        losses.append([svi.step(x) for _ in range(3)])
    assert losses[0] == losses[1]


# Data stay what they are ---------------------------------------------------------------------------


def cells():
    generator = torch.Generator().manual_seed(0)
    x, c = torch.randn(12, generator=generator) * 3, torch.randn(12, generator=generator) * 2
    return x, c, x.clone(), c.clone()


def about_context(x, c):
    c = c["c"] if isinstance(c, dict) else c
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(c, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


class StartsAt:
    """A guide one of whose parameters starts at the data."""

    def __init__(self, how, x):
        self.how, self.runs, self.module = how, 0, nn.Linear(1, 1)
        self.start = torch.zeros(())
        if how in ("module", "module, later"):
            self.module.at = nn.Parameter(torch.from_numpy(x.numpy())[:3])

    def __call__(self, x, c):
        c, how = c["c"] if isinstance(c, dict) else c, self.how
        late = how != "module, later" or self.runs > 30
        if late:
            pyro.module("m", self.module)
        shift = self.module.at.mean() if late and how.startswith("module") else torch.zeros(())
        shift = shift + pyro.param("shift", self.start)
        if how.endswith("later"):  # what counts is not compiled
            self.runs += 1
        if how == "param":
            shift = shift + pyro.param("at", x)
        elif how == "lazy":
            shift = shift + pyro.param("at", lambda: c)
        elif how == "a view":
            shift = shift + pyro.param("at", x[1:4]).mean()
        elif how == "later" and self.runs > 30:
            shift = shift + pyro.param("at", x[0])
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.5 * (x + c) + shift, 0.7))


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("how", ["param", "lazy", "a view", "later", "module", "module, later", "messenger"])
def test_a_parameter_that_starts_at_the_data_does_not_train_them(how, compile):
    if compile and how not in ("param", "module"):
        return
    x, c, x_before, c_before = cells()
    guide = AutoNormalMessenger(about_context) if how == "messenger" else StartsAt(how, x)
    fit = pv.fit(about_context, guide, (x, c), epochs=60, lr=0.05, compile=compile, progress=False)
    assert torch.equal(x, x_before) and torch.equal(c, c_before) and not (x.requires_grad or c.requires_grad)
    if how != "messenger":
        assert guide.start == 0, "nor what else a parameter starts at"
        at = dict(fit.store.unconstrained())
        assert any(abs(float(p.detach().sum())) > 1e-3 for p in at.values())
    exact = dist.Normal(c_before.double(), 2**0.5).log_prob(x_before.double()).mean()
    found = pv.evidence(fit.model, fit.guide, x, c, estimators=[pv.IS(20000)], progress=False)["IS"]
    assert abs(found.log_evidence - exact) < 4 * found.se_mc + 1e-3


@pytest.mark.parametrize("kind", ["numpy", "validation", "dict"])
def test_no_form_of_data_is_trained(kind):
    x, c, x_before, c_before = cells()
    given = {
        "numpy": (x.numpy(), c.numpy()),
        "dict": (x, {"c": pv.per_datum(c)}),
        "validation": (x.clone(), c.clone()),
    }[kind]
    guide = StartsAt("module", x)
    valid = (x, c) if kind == "validation" else None
    pv.fit(about_context, guide, given, valid=valid, epochs=20, lr=0.05, progress=False)
    assert torch.equal(x, x_before) and torch.equal(c, c_before)
    assert not torch.equal(guide.module.at.detach(), x_before[:3]), "the parameter is"


@pytest.mark.parametrize("how", ["param", "lazy", "a view", "later", "module", "messenger"])
@pytest.mark.parametrize("optim", ["torch", "pyro"])
def test_svi_does_not_train_the_data(how, optim):
    x, c, x_before, c_before = cells()
    guide = AutoNormalMessenger(about_context) if how == "messenger" else StartsAt(how, x)
    adam = functools.partial(torch.optim.Adam, lr=0.05)
    pyro.clear_param_store()
    svi = pv.SVI(
        about_context,
        guide,
        adam if optim == "torch" else pyro.optim.Adam({"lr": 0.05}),
        Trace_ELBO(),
        compile=False,
    )
    losses = [svi.step(x, c) for _ in range(60)]
    assert torch.equal(x, x_before) and torch.equal(c, c_before)
    assert len(set(losses)) == 60


def test_parameters_among_the_data_are_refused():
    x, c, *_ = cells()
    guide = StartsAt("module", x)
    guide.module.at = nn.Parameter(x)
    with pytest.raises(ValueError, match=r"parameters of this program as data: \['m\.at'\]; try"):
        pv.fit(about_context, guide, (guide.module.at, c), epochs=1)


ASKED = {
    "evidence": lambda m, g, *a: pv.evidence(m, g, *a, progress=False),
    "log_weights": pv.log_weights,
    "posterior": pv.posterior,
    "embed": pv.embed,
    "reconstruct": pv.reconstruct,
    "gaps": lambda m, g, *a: pv.gaps(m, g, *a, progress=False),
    "simulate": lambda m, g, *a: pv.simulate(m, *a),
    "elbo_surgery": pv.elbo_surgery,
    "rate_distortion": pv.rate_distortion,
    "free_energy": pv.free_energy,
    "sandwich": lambda m, g, *a: pv.sandwich(m, g, *a, progress=False),
    "column_terms": pv.column_terms,
}


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.filterwarnings("ignore")
def test_what_asks_a_program_writes_into_nothing(name):
    x, c, x_before, c_before = cells()
    guide = StartsAt("param", x)
    guide.module.at = nn.Parameter(x[:3])
    guide.module.mine = nn.Parameter(torch.ones(2))
    pyro.clear_param_store()
    with contextlib.suppress(ValueError, TypeError):  # some want another program
        ASKED[name](about_context, guide, x, c)
    assert torch.equal(x, x_before) and torch.equal(c, c_before)
    assert torch.equal(guide.module.mine.detach(), torch.ones(2)) and guide.start == 0
    assert not (x.requires_grad or c.requires_grad)


def tied_at(start):
    """Two parameters that start at one tensor."""

    def model(x):
        w = pyro.param("decoder", start)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z[..., None] * w, 1.0).to_event(1), obs=x)

    def guide(x):
        w = pyro.param("encoder", start)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x * w).sum(-1), 1.0))

    return model, guide


@pytest.mark.parametrize("grad", [False, True])
def test_parameters_that_start_at_one_tensor_are_one_as_in_pyro(grad):
    """Two names of a tensor that is no data are tied, and it has the trained values afterwards."""

    def run(kind):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        start = torch.full((3,), 0.3, requires_grad=grad)

        model, guide = tied_at(start)
        svi = kind(model, guide, pyro.optim.SGD({"lr": 0.01}), pyro.infer.Trace_ELBO())
        x = torch.randn(16, 3, generator=torch.Generator().manual_seed(1))
        losses = [float(svi.step(x)) for _ in range(4)]
        return losses, [pyro.param(n).detach().clone() for n in ("encoder", "decoder")], start.detach()

    ours, pyros = run(pv.SVI), run(pyro.infer.SVI)
    assert ours[0] == pytest.approx(pyros[0], rel=1e-5)
    for value in (*ours[1], ours[2]):
        torch.testing.assert_close(value, pyros[1][0])


def test_parameters_of_a_fit_that_start_at_one_tensor_are_one():
    """A fit leaves the tensor itself to the next one."""
    start, x = torch.full((2,), 0.3), torch.randn(20, 2, generator=torch.Generator().manual_seed(1))

    model, guide = tied_at(start)
    fits = [pv.fit(model, guide, x, epochs=5, lr=0.05, progress=False) for _ in range(2)]
    assert start.tolist() == pytest.approx([0.3, 0.3])
    for fit in fits:
        found = fit.store.unconstrained()
        assert torch.equal(found["encoder"], found["decoder"]) and not torch.allclose(found["encoder"], start)
    assert fits[0].history[-1]["loss"] == fits[1].history[-1]["loss"]
