"""A compiled step is the program of now: against `pyro.infer.SVI` under the same seed, step by step."""

import random
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as T
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from torch import nn

import pyrovae as pv

D, L, N = 5, 2, 12


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Graphs run as they were traced: what is tested is which step is taken, not the code that is generated."""
    monkeypatch.setattr("pyrovae.programs.compiling.compile_graph", lambda graph, *rest: graph.module)


def data(n=N, seed=1):
    return (torch.rand(n, D, generator=torch.Generator().manual_seed(seed)) > 0.5).float()


def adam():
    return pyro.optim.Adam({"lr": 0.02})


def run(make_svi, case, steps=12, optim=adam, loss=Trace_ELBO):
    """Losses, the final parameters by name, and what made them."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    random.seed(0)
    program = case()
    svi = make_svi(program.model, program.guide, optim(), loss())
    torch.manual_seed(7)
    losses = []
    for i in range(steps):
        args = program.before(i)
        args, kwargs = args if isinstance(args, tuple) and isinstance(args[-1], dict) else ((args,), {})
        losses.append(svi.step(*args, **kwargs))
    store = pyro.get_param_store()
    return losses, {k: v.detach().clone() for k, v in store._params.items()}, svi


def ours(*args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return pv.SVI(*args, compile=True)


def assert_pyros(case, **options):
    """The losses and the parameters are Pyro's, to rounding."""
    want, weights, _ = run(SVI, case, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got, params, svi = run(ours, case, **options)
    assert got == pytest.approx(want, rel=2e-5, abs=1e-4)
    for name, value in weights.items():
        torch.testing.assert_close(params[name], value, rtol=1e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")
    svi.said = [str(w.message) for w in caught if "eager" in str(w.message)]
    assert len(svi.said) <= 1 and (svi.refused is None) == (not svi.said)
    return svi


class Program:
    """A small VAE; what a test changes is in a subclass."""

    def __init__(self):
        self.enc, self.dec = nn.Linear(D, 2 * L), nn.Linear(L, D)
        self.x = data()

    def before(self, i):
        """What happens before step i; returns its argument."""
        return self.x

    def weight(self):
        return 1.0

    def model(self, x):
        pyro.module("dec", self.dec)
        with pyro.plate("data", len(x)):
            with poutine.scale(scale=self.weight()):
                z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.dec(z)).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("enc", self.enc)
        with pyro.plate("data", len(x)), poutine.scale(scale=self.weight()):
            loc, raw = self.enc(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


WEIGHT = 1.0
CONFIG = {"beta": 1.0, "deep": [1.0, {"weight": 1.0}]}


class Attribute(Program):
    beta = 1.0

    def before(self, i):
        if i == 6:
            self.beta = 3.0
        return self.x

    def weight(self):
        return self.beta


class Global(Program):
    def before(self, i):
        global WEIGHT
        WEIGHT = 1.0 if i < 6 else 3.0
        return self.x

    def weight(self):
        return WEIGHT


class Nested(Program):
    def before(self, i):
        CONFIG["deep"][1]["weight"] = 1.0 if i < 6 else 3.0
        return self.x

    def weight(self):
        return CONFIG["deep"][1]["weight"]


class OnTheClass(Program):
    weighing = 1.0

    def before(self, i):
        type(self).weighing = 1.0 if i < 6 else 3.0
        return self.x

    def weight(self):
        return self.weighing


class Closure(Program):
    def __init__(self):
        super().__init__()
        beta = 1.0

        def raise_it():
            nonlocal beta
            beta = 3.0

        self.raise_it, self.weight = raise_it, lambda: beta

    def before(self, i):
        if i == 6:
            self.raise_it()
        return self.x


class Rule(Program):
    """A threshold in a comparison of Python, whose value matters only from some step on."""

    epoch = 0

    def before(self, i):
        self.epoch = i
        return self.x

    def weight(self):
        return 1.0 if self.epoch < 8 else 3.0


class Counter(Program):
    """The program counts its own runs."""

    calls = 0

    def weight(self):
        self.calls += 1
        return min(1.0, self.calls / 20)


class Random(Program):
    def weight(self):
        return random.choice([0.5, 1.0, 2.0])


class Rebound(Program):
    """A plain tensor that is exchanged."""

    tensor = torch.tensor(1.0)

    def before(self, i):
        if i == 6:
            self.tensor = torch.tensor(3.0)
        return self.x

    def weight(self):
        return self.tensor


class Frozen(Program):
    def before(self, i):
        if i == 6:
            self.enc.weight.requires_grad_(False)
        return self.x


class Unfrozen(Program):
    def __init__(self):
        super().__init__()
        self.enc.weight.requires_grad_(False)

    def before(self, i):
        if i == 6:
            self.enc.weight.requires_grad_(True)
        return self.x


class Hooked(Program):
    def before(self, i):
        if i == 6:
            self.dec.register_forward_hook(lambda module, inputs, out: 0.5 * out)
        return self.x


class Handled(Program):
    """The guide's scale is a tensor of the store."""

    def guide(self, x):
        scale = pyro.param("scale", torch.ones(L), constraint=dist.constraints.positive)
        loc = pyro.param("loc", torch.zeros(L))
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))


class Replaced(Handled):
    def before(self, i):
        if i == 6:
            pyro.get_param_store()["loc"] = torch.full((L,), 2.0)
        return self.x


class Cleared(Handled):
    def before(self, i):
        if i == 6:
            pyro.clear_param_store()
        return self.x


class SetState(Handled):
    def before(self, i):
        store = pyro.get_param_store()
        if i == 2:
            self.kept = {k: (v.clone() if isinstance(v, torch.Tensor) else v) for k, v in store._params.items()}
        if i == 6:
            state = store.get_state()
            state["params"] = {k: v.detach().clone().requires_grad_() for k, v in self.kept.items()}
            store.set_state(state)
        return self.x


class Slot(Program):
    """A module's own weights are exchanged; Pyro goes on with the store's, which nothing uses then."""

    def before(self, i):
        if i == 6:
            self.dec.weight = nn.Parameter(torch.ones(D, L))
        return self.x


class Mutated(Program):
    """A dictionary is changed in place between steps."""

    def __init__(self):
        super().__init__()
        self.given = {"x": self.x, "beta": 1.0, "many": [1.0, 2.0]}

    def before(self, i):
        if i == 6:
            self.given["many"][1] = 6.0
        return self.given

    def model(self, given):
        pyro.module("dec", self.dec)
        with pyro.plate("data", len(given["x"])):
            with poutine.scale(scale=given["many"][1] * given["beta"]):
                z = pyro.sample("z", dist.Normal(given["x"].new_zeros(L), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.dec(z)).to_event(1), obs=given["x"])

    def guide(self, given):
        super().guide(given["x"])


CHANGES = [Attribute, Global, Nested, OnTheClass, Closure, Rule, Counter, Random, Rebound, Frozen, Unfrozen, Hooked]
CHANGES += [Replaced, Cleared, SetState, Slot]


@pytest.mark.parametrize("case", CHANGES)
def test_state_that_changes(case):
    assert_pyros(case)
