"""Training: programs that subsample, where data come from, and what the first step looks at."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
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
