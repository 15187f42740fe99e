"""A compiled step is the program of now: against `pyro.infer.SVI` under the same seed, step by step."""

import contextlib
import ctypes
import functools
import math
import os
import random
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as T
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, JitTrace_ELBO, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.infer.autoguide import AutoLowRankMultivariateNormal, AutoNormal
from pyro.nn import PyroModule, PyroSample
from torch import nn

import pyrovae as pv

D, L, N = 5, 2, 12


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """Graphs run as they were traced: what is tested is which step is taken, not the code that is generated."""
    monkeypatch.setattr("pyrovae.programs.compile.codegen.compile_module", lambda module, *rest: module)


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
        *args, kwargs = args if isinstance(args, tuple) else (args, {})
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
        torch.testing.assert_close(
            params[name], value, rtol=1e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}"
        )
    svi.said = [str(w.message) for w in caught if "eager" in str(w.message)]
    assert len(svi.said) <= 1 and (svi.refused is None) == (not svi.said)
    return svi


class Program:
    """A small VAE; what a test changes is in a subclass."""

    def __init__(self):
        self.enc, self.dec = nn.Linear(D, 2 * L), nn.Linear(L, D)
        self.x = data()

    def before(self, i):
        """What happens before step i; returns its argument, or a tuple of arguments and a dict of keyword ones."""
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
            self.kept = {
                k: (v.clone() if isinstance(v, torch.Tensor) else v) for k, v in store._params.items()
            }
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


CHANGES = [
    Attribute,
    Global,
    Nested,
    OnTheClass,
    Closure,
    Rule,
    Counter,
    Random,
    Rebound,
    Frozen,
    Unfrozen,
    Hooked,
]
CHANGES += [Replaced, Cleared, SetState, Slot]


@pytest.mark.parametrize("case", CHANGES)
def test_state_that_changes(case):
    assert_pyros(case)


class Running(Program):
    """A running mean in a buffer, written in place by the guide."""

    def __init__(self):
        super().__init__()
        self.norm = nn.Module()
        self.norm.register_buffer("mean", torch.zeros(D))

    def guide(self, x):
        self.norm.mean.mul_(0.9).add_(0.1 * x.mean(0))
        super().guide(x - self.norm.mean)


class Flow(Program):
    """`T.BatchNorm` writes its moments as it runs."""

    def __init__(self):
        super().__init__()
        self.flow = [T.BatchNorm(L), T.AffineCoupling(1, pyro.nn.DenseNN(1, [4], [1, 1]))]

    def guide(self, x):
        pyro.module("flow", nn.ModuleList(self.flow))
        pyro.module("enc", self.enc)
        with pyro.plate("data", len(x)):
            loc, raw = self.enc(x).chunk(2, -1)
            base = dist.Normal(loc, raw.exp()).to_event(1)
            pyro.sample("z", dist.TransformedDistribution(base, self.flow))


class OneName(Program):
    """Two modules of one shape under one name: Pyro trains the first alone."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Linear(L, L), nn.Linear(L, L)

    def model(self, x):
        pyro.module("same", self.one)
        pyro.module("same", self.other)
        pyro.module("dec", self.dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.dec(self.other(self.one(z)))).to_event(1), obs=x)


class Writes(Program):
    """Keeps its last draw, its losses and the number of its runs where others may look at them."""

    kept, last, runs = [], None, 0

    def model(self, x):
        super().model(x)
        self.last = x.mean()
        self.kept.append(self.last)


@pytest.mark.parametrize("case", [Running, Flow, OneName, Writes])
def test_a_look_changes_nothing(case):
    svi = assert_pyros(case)
    assert svi.compiled_share == 0 and svi.refused and svi.said
    if case is not OneName:
        assert "test_watch.py, line" in svi.refused or case is Flow


class Unused(Program):
    """A weight that the loss of large batches alone depends on: Pyro moves it by momentum after small ones."""

    def __init__(self):
        super().__init__()
        self.extra = nn.Linear(L, D)

    def before(self, i):
        return data(N) if i < 3 else data(4)

    def model(self, x):
        pyro.module("dec", self.dec)
        pyro.module("extra", self.extra)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
            logits = self.dec(z) + (self.extra(z) if len(x) > 6 else 0.0)
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


class UnusedAtFirst(Unused):
    """The graph of small batches is the compiled one."""

    def before(self, i):
        return data(N) if i in (0, 5) else data(4)


class Fixed(torch.optim.SGD):
    """Momentum in one optimizer of torch."""

    def __init__(self, params):
        super().__init__(params, lr=1e-3, momentum=0.9)


@pytest.mark.parametrize("case", [Unused, UnusedAtFirst])
@pytest.mark.parametrize("momentum", [False, True])
def test_parameters_without_a_gradient_are_moved_as_pyro_moves_them(case, momentum):
    settings = {"lr": 1e-3, "momentum": 0.9}
    svi = assert_pyros(case, optim=(lambda: pyro.optim.SGD(settings)) if momentum else adam)
    assert svi.compiled_share == 10 / 12
    want, weights, _ = run(SVI, case, optim=lambda: pyro.optim.SGD(settings))
    got, params, svi = run(ours, case, optim=lambda: Fixed)
    assert got == pytest.approx(want, rel=2e-5, abs=1e-4) and svi.compiled_share > 0
    for name, value in weights.items():
        torch.testing.assert_close(params[name], value, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("value", [3.0, float("nan")])
def test_data_outside_of_the_support(value):
    """Pyro's own error, and parameters as they were; also on the fixed tensors that a GPU captures."""
    for optim in (adam, lambda: torch.optim.Adam):
        program, (_, before, svi) = Program(), run(ours, Program, optim=optim)
        x = data()
        x[3, 2] = value
        with pytest.raises(ValueError, match=r"within the support|invalid values"):
            svi.step(x)
        after = pyro.get_param_store()._params
        assert all(torch.equal(after[k], v) for k, v in before.items())
        assert svi.compiled_share == 11 / 12 and math.isfinite(svi.step(program.x))


class Unchecked(Program):
    """Grey levels under a Bernoulli without validation, as Pyro's tutorial has them."""

    def __init__(self):
        super().__init__()
        self.x = 0.3 * self.x + 0.1

    def model(self, x):
        pyro.module("dec", self.dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
            law = dist.Bernoulli(logits=self.dec(z), validate_args=False).to_event(1)
            pyro.sample("x", law, obs=x)


def test_what_the_program_does_not_validate():
    assert assert_pyros(Unchecked).compiled_share == 11 / 12


class Explodes(Program):
    """A loss that is infinite is Pyro's, and so is what comes after."""

    def before(self, i):
        return self.x * (1e30 if i == 6 else 1.0)

    def model(self, x):
        pyro.module("dec", self.dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.dec(z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        super().guide(x.clamp(0, 1))


def test_a_loss_that_is_infinite():
    want, weights, _ = run(SVI, Explodes)
    got, params, _ = run(ours, Explodes)
    assert math.isinf(want[6]) and got == pytest.approx(want, rel=2e-5, abs=1e-4, nan_ok=True)
    for name, value in weights.items():
        torch.testing.assert_close(params[name], value, rtol=1e-3, atol=2e-4, equal_nan=True)


# Arguments -----------------------------------------------------------------------------------------------


class Positional(Program):
    def before(self, i):
        return (self.x, min(1.0, (1 + i) / 8), {})

    def model(self, x, beta=1.0, flag=True, names=()):
        with poutine.scale(scale=beta if flag else 0.5):
            super().model(x)

    def guide(self, x, beta=1.0, flag=True, names=()):
        with poutine.scale(scale=beta if flag else 0.5):
            super().guide(x)


class Keyword(Positional):
    def before(self, i):
        return (self.x, {"beta": 0.1 + 0.1 * i, "flag": True})


class KeywordThatTurns(Positional):
    def before(self, i):
        return (self.x, {"beta": 0.1 + 0.1 * i, "flag": i < 6})


class EndsInAnInt(Positional):
    def before(self, i):
        return (self.x, min(1, (1 + i) / 4), {})


class Whole(Positional):
    """A whole number that the program takes for a number, and one that it takes for a size."""

    def before(self, i):
        return (self.x, 1 + i, {})


class Sized(Program):
    def before(self, i):
        return (self.x, N, {"total": 100.0 + i})

    def model(self, x, n, total):
        pyro.module("dec", self.dec)
        with poutine.scale(scale=total / n), pyro.plate("data", n):
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.dec(z)).to_event(1), obs=x)

    def guide(self, x, n, total):
        with poutine.scale(scale=total / n):
            super().guide(x)


class Compared(Positional):
    """A number that decides the course: it stays part of the graph."""

    def before(self, i):
        return (self.x, 0.5 if i in (4, 5) else 2.0, {})

    def weight(self):
        return 1.0

    def model(self, x, beta=1.0):
        super().model(x, 1.0 if beta > 1 else 3.0)

    def guide(self, x, beta=1.0):
        super().guide(x, 1.0 if beta > 1 else 3.0)


class Arrays(Positional):
    def before(self, i):
        return (self.x, {"names": np.arange(3)})


class InADict(Mutated):
    def before(self, i):
        return {"x": data(seed=i), "beta": 1.0, "many": [1.0, 2.0 + i]}


class Strides(Program):
    def before(self, i):
        return self.x.t().contiguous().t() if i % 2 else self.x


class Texts(Positional):
    def before(self, i):
        return (self.x, {"names": ("a", "b" if i < 6 else "c")})


ARGUMENTS = {
    Positional: 11,
    Keyword: 11,
    KeywordThatTurns: 10,
    EndsInAnInt: 11,
    Whole: 11,
    Sized: 11,
    Compared: 10,
    Arrays: 11,
    Mutated: 11,
    InADict: 11,
    Strides: 11,
    Texts: 10,
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments(case):
    svi = assert_pyros(case)
    assert round(12 * svi.compiled_share) == ARGUMENTS[case]
    assert svi.refused is None


# State that changes at any step --------------------------------------------------------------------------


class AtRandom(Program):
    """One of the things a program reads changes at some step."""

    def __init__(self, at, what):
        super().__init__()
        self.at, self.what = at, what
        self.beta, self.table = 1.0, {"beta": [1.0]}
        self.holder = type("Holder", (), {"__slots__": ("beta",)})()
        self.holder.beta = np.float64(1.0)
        self.levels = np.ones(3)
        self.fixed = functools.partial(lambda scale, by: scale * by["beta"], by={"beta": 1.0})

    def before(self, i):
        if i == self.at:
            for kind, change in {
                "attribute": lambda: setattr(self, "beta", 2.0),
                "element": lambda: self.table["beta"].__setitem__(0, 2.0),
                "slot": lambda: setattr(self.holder, "beta", np.float64(2.0)),
                "array": lambda: self.levels.__setitem__(1, 2.0),
                "partial": lambda: self.fixed.keywords["by"].update(beta=2.0),
                "method": lambda: setattr(self, "weight", lambda: 2.0),
                "mode": lambda: self.dec.eval(),
            }.items():
                if kind == self.what:
                    change()
        return self.x

    def weight(self):
        scale = self.beta * self.table["beta"][0] * float(self.holder.beta) * float(self.levels[1])
        return self.fixed(scale) * (1.0 if self.dec.training else 2.0)


@pytest.mark.parametrize("seed", range(7))
def test_a_change_at_any_step_is_seen_at_that_step(seed):
    rng = random.Random(seed)
    what = ["attribute", "element", "slot", "array", "partial", "method", "mode"][seed]
    at = rng.randrange(3, 40)
    svi = assert_pyros(lambda: AtRandom(at, what), steps=42)
    assert round(svi.compiled_share * 42) == at - 1, (at, what)


class Hidden(Program):
    """A number in memory that Python cannot name: what is left to the comparison with an eager step."""

    def __init__(self, at):
        super().__init__()
        self.at, self.memory = at, (ctypes.c_double * 1)(1.0)

    def before(self, i):
        if i == self.at:
            self.memory[0] = 2.0
        return self.x

    def weight(self):
        return self.memory[0]


@pytest.mark.parametrize("at", [3, 11, 20])
def test_what_python_cannot_name_is_seen_at_the_next_comparison(at):
    svi = assert_detected(at)
    seen = next(n for n in (1, 2, 4, 8, 16, 32) if n > at - 1)
    assert svi.compiled_steps == seen - 1


def assert_detected(at):
    """Pyro's trajectory from the comparison on that finds the change: with the weights that stand there."""
    pyro.clear_param_store()
    torch.manual_seed(0)
    program = Hidden(at)
    svi = ours(program.model, program.guide, adam(), Trace_ELBO())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i in range(40):
            x, discarded = program.before(i), svi.discarded
            state = {k: v.detach().clone() for k, v in pyro.get_param_store()._params.items()}
            torch.manual_seed(100 + i)
            loss = svi.step(x)
            if svi.discarded and not discarded:  # the step that found it is the program's own
                with pv.ParameterStore().active(), torch.no_grad():
                    for name, value in state.items():
                        pyro.get_param_store()._params[name] = value
                torch.manual_seed(100 + i)
                kept = {k: p.detach().clone() for k, p in pyro.get_param_store()._params.items()}
                with torch.no_grad():
                    for k, p in pyro.get_param_store()._params.items():
                        p.copy_(state[k])
                assert loss == pytest.approx(Trace_ELBO().loss(program.model, program.guide, x), rel=1e-6)
                with torch.no_grad():
                    for k, p in pyro.get_param_store()._params.items():
                        p.copy_(kept[k])
    said = [str(w.message) for w in caught if "runs eagerly" in str(w.message)]
    assert len(said) == 1 and "its loss is" in said[0] and svi.discarded
    return svi


# pv.fit ----------------------------------------------------------------------------------------------------


def fit(program, compile, change=None, **options):
    torch.manual_seed(0)
    program = program()
    options = {"epochs": 4, "batch_size": 4, "seed": 3, "compile": compile, "restore_best": False} | options
    return pv.fit(program.model, program.guide, data(14), on_epoch=change and change(program), **options)


def raised(program):
    def on_epoch(row):
        if row["epoch"] == 2:
            program.beta = 3.0

    return on_epoch


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_fit_whose_program_changes(ema):
    """The compiled epoch on fixed tensors, as a GPU captures it."""
    eager = fit(Attribute, False, raised, ema=ema)
    with pytest.warns(UserWarning, match=r"'beta' of Attribute was .* \(test_watch.py, line"):
        compiled = fit(Attribute, True, raised, ema=ema)
    for row, other in zip(compiled.history, eager.history, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-4)
    for name, value in eager.store.state_dict().items():
        torch.testing.assert_close(compiled.store.state_dict()[name], value, rtol=1e-3, atol=2e-4)
    # Three full batches of four; a smaller last one runs eagerly.
    assert [row["compiled_share"] for row in compiled.history] == [0.75, 0.75, 0, 0]
    assert compiled.compiled_share == 0.375 and "beta" in compiled.refused
    assert eager.compiled_share == 0 and eager.refused is None


def test_a_divided_fit_whose_program_changes_ends():
    split = pv.distributed.Split(accumulate=2)
    with (
        pytest.raises(ValueError, match=r"stays what it was compiled as.*'beta' of Attribute"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        fit(Attribute, True, raised, split=split, batch_size=7)


def test_a_fit_of_fortran_order():
    torch.manual_seed(0)
    program, x = Program(), data(14)
    run = pv.fit(program.model, program.guide, x.t().contiguous().t(), epochs=2, batch_size=14, compile=True)
    program = fit(Program, True, epochs=2, batch_size=14, seed=0)
    assert run.history == program.history and run.compiled_share == 1


def test_a_discarded_step_stays_so_in_a_resumed_run(tmp_path):
    with pytest.warns(UserWarning, match="runs eagerly"):
        whole = fit(Attribute, True, raised)
        fit(Attribute, True, raised, epochs=3, checkpoint=tmp_path)

    class Raised(Attribute):
        beta = 3.0

    resumed = fit(Raised, True, checkpoint=tmp_path, resume=True)
    assert resumed.history == whole.history and resumed.refused == whole.refused


# Programs that compile --------------------------------------------------------------------------------------


class Mixture(Program):
    """Enumerated in the model."""

    def model(self, x):
        weights = pyro.param("w", torch.ones(3) / 3, constraint=dist.constraints.simplex)
        locs = pyro.param("locs", lambda: 0.1 * torch.randn(3, D))
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(weights), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Bernoulli(logits=locs[k]).to_event(1), obs=x)

    def guide(self, x):
        pass


class SemiSupervised(Program):
    """Enumerated in the guide, before a continuous latent."""

    def __init__(self):
        super().__init__()
        self.label, self.enc, self.dec = nn.Linear(D, 3), nn.Linear(D + 3, 2 * L), nn.Linear(L + 3, D)

    def model(self, x):
        pyro.module("dec", self.dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(L), 1.0).to_event(1))
            y = pyro.sample("y", dist.OneHotCategorical(torch.ones(3) / 3))
            shape = torch.broadcast_shapes(z.shape[:-1], y.shape[:-1])
            both = torch.cat([z.expand(*shape, L), y.expand(*shape, 3)], -1)
            pyro.sample("x", dist.Bernoulli(logits=self.dec(both)).to_event(1), obs=x)

    @config_enumerate
    def guide(self, x):
        pyro.module("label", self.label)
        pyro.module("enc", self.enc)
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.OneHotCategorical(logits=self.label(x)))
            shape = torch.broadcast_shapes(x.shape[:-1], y.shape[:-1])
            both = torch.cat([x.expand(*shape, D), y.expand(*shape, 3)], -1)
            loc, raw = self.enc(both).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, raw.exp()).to_event(1))


class Dropout(Program):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Linear(D, 8), nn.Dropout(0.3), nn.Linear(8, 2 * L))


class Regression:
    """Priors in the place of weights, made before any step, and a guide of Pyro's."""

    def __init__(self, guide=AutoNormal):
        class Model(PyroModule):
            def __init__(self):
                super().__init__()
                self.linear = PyroModule[nn.Linear](L, D)
                self.linear.weight = PyroSample(
                    dist.Normal(0.0, torch.tensor(1.0)).expand([D, L]).to_event(2)
                )
                self.linear.bias = PyroSample(dist.Normal(0.0, 1.0).expand([D]).to_event(1))

            def forward(self, x):
                logits = self.linear(x[:, :L])
                with pyro.plate("data", len(x)):
                    pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

        self.model = Model()
        self.guide = guide(self.model)
        self.x = data()

    def before(self, i):
        return self.x


class LowRank(Regression):
    def __init__(self):
        super().__init__(functools.partial(AutoLowRankMultivariateNormal, rank=2))


class Planar(Program):
    def __init__(self):
        super().__init__()
        self.flow = [T.Planar(L), T.Planar(L)]

    guide = Flow.guide


class Table(Program):
    """Numbers of Python and NumPy made into tensors in the program."""

    def __init__(self):
        super().__init__()
        self.logits, self.shift = [0.1, 0.2, 0.3, 0.4, 0.5], np.linspace(0, 1, D, dtype=np.float32)

    def model(self, x):
        shift = torch.tensor(self.logits) + torch.as_tensor(self.shift)
        pyro.module("dec", self.dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.dec(z) + shift).to_event(1), obs=x)


MORE = {
    Mixture: lambda: TraceEnum_ELBO(max_plate_nesting=1),
    SemiSupervised: lambda: TraceEnum_ELBO(max_plate_nesting=1),
    Dropout: Trace_ELBO,
    Regression: Trace_ELBO,
    LowRank: Trace_ELBO,
    Planar: Trace_ELBO,
    Table: Trace_ELBO,
}


@pytest.mark.parametrize("case", MORE)
def test_programs_that_compile(case):
    svi = assert_pyros(case, loss=MORE[case])
    assert svi.compiled_share == 11 / 12


def test_jit_is_taken_as_its_eager_twin():
    want, weights, _ = run(SVI, Global)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got, params, svi = run(ours, Global, loss=JitTrace_ELBO)
    assert got == pytest.approx(want, rel=2e-5, abs=1e-4) and 0 < svi.compiled_share < 1
    for name, value in weights.items():
        torch.testing.assert_close(params[name], value, rtol=1e-3, atol=2e-4)


def test_handlers_around_a_step():
    """A scale around some steps is theirs alone."""
    out = []
    for make in (SVI, ours):
        pyro.clear_param_store()
        torch.manual_seed(0)
        program = Program()
        svi = make(program.model, program.guide, adam(), Trace_ELBO())
        torch.manual_seed(7)
        losses = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for i in range(8):
                with poutine.scale(scale=0.5) if i in (3, 4) else contextlib.nullcontext():
                    losses.append(svi.step(program.x))
        out.append(losses)
    assert out[1] == pytest.approx(out[0], rel=2e-5)


# What is not a value: code, classes, hooks, generators, numbers of tensors -----------------------------------


class Changing(Program):
    """Something about the program other than a value changes at step 6."""

    def before(self, i):
        if i == 6:
            self.change()
        return self.x

    def weight(self):
        return self.scale()

    def scale(self, by=1.0):
        return by

    def change(self):
        raise NotImplementedError


class Defaults(Changing):
    def __init__(self):
        super().__init__()

        def scale(by=1.0):
            return by

        self.scale = scale

    def change(self):
        self.scale.__defaults__ = (3.0,)


class Code(Defaults):
    def change(self):
        self.scale.__code__ = (lambda by=1.0: 3.0 * by).__code__


class KeywordDefaults(Defaults):
    def __init__(self):
        super().__init__()

        def scale(*, by=1.0):
            return by

        self.scale = scale

    def change(self):
        self.scale.__kwdefaults__["by"] = 3.0


class OtherClass(Changing):
    def change(self):
        self.__class__ = Heavier


class Heavier(OtherClass):
    def scale(self, by=3.0):
        return by


class OtherForward(Changing):
    def change(self):
        self.dec.forward = lambda z: nn.functional.linear(z, self.dec.weight)


class BackwardHook(Changing):
    def change(self):
        self.dec.register_full_backward_hook(lambda module, into, out: (0.1 * into[0],))


class TensorHook(Changing):
    def change(self):
        self.dec.weight.register_hook(lambda grad: 0 * grad)


class AccumulateHook(Changing):
    def change(self):
        self.dec.weight.register_post_accumulate_grad_hook(self.zero)

    @staticmethod
    def zero(p):
        p.grad.zero_()


class Item(Changing):
    """A tensor whose number goes into Python."""

    def __init__(self):
        super().__init__()
        self.tensor = torch.ones(())

    def scale(self, by=1.0):
        return self.tensor.item()

    def change(self):
        self.tensor.data.fill_(3.0)


class Listed(Item):
    def scale(self, by=1.0):
        return self.tensor.tolist()


class Constraint(Changing):
    def guide(self, x):
        pyro.module("enc", self.enc)
        scale = pyro.param("scale", torch.ones(L), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.enc(x)[:, :L], scale).to_event(1))

    def change(self):
        pyro.get_param_store()._constraints["scale"] = dist.constraints.greater_than(0.5)


class AnyModuleHook(Changing):
    """A hook around the calls of all modules."""

    def before(self, i):
        if i == 6:
            self.hook = nn.modules.module.register_module_forward_hook(lambda module, inputs, out: 0.5 * out)
        if i == 11:
            self.hook.remove()
        return self.x


class Relaid(Changing):
    """Weights of other strides, which generated code would read in the former order."""

    def change(self):
        self.dec.weight.data = self.dec.weight.data.T.contiguous().T


class Turned(Changing):
    """A plain tensor, transposed in place."""

    def __init__(self):
        super().__init__()
        self.turn = torch.arange(float(D * D)).view(D, D) / D

    def guide(self, x):
        super().guide(x @ self.turn / D)

    def change(self):
        self.turn.t_()


OTHER = [Defaults, Code, KeywordDefaults, OtherClass, OtherForward, BackwardHook, TensorHook, AccumulateHook]
OTHER += [Item, Listed, Constraint, AnyModuleHook, Relaid, Turned]


@pytest.mark.parametrize("case", OTHER)
def test_what_is_not_a_value_is_seen_at_that_step(case):
    svi = assert_pyros(case)
    assert svi.compiled_share == 5 / 12 and svi.discarded


class OwnTerm(Program):
    """A user's own term, written behind the back of the gradients' versions."""

    def before(self, i):
        if i > 5:
            for p in self.dec.parameters():
                p.grad.data.add_(5.0)
        return self.x


def test_gradients_of_a_users_own_are_added():
    assert assert_pyros(OwnTerm).compiled_share == 5 / 12


class Drawn(Program):
    """A generator that the program draws from: a look must not move it on."""

    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def weight(self):
        return 1.0 + float(self.generator.random())


class Streamed(Program):
    def __init__(self):
        super().__init__()
        self.stream = iter(range(1, 100))

    def weight(self):
        return 0.1 * next(self.stream)


@pytest.mark.parametrize(
    "case",
    [
        lambda: Drawn(np.random.default_rng(0)),
        lambda: Drawn(np.random.RandomState(0)),
        lambda: Drawn(random.Random(0)),
        Streamed,
    ],
)
def test_a_look_moves_no_generator_on(case):
    svi = assert_pyros(case)
    assert svi.compiled_share == 0 and "something else each time" in svi.refused


def test_another_model_in_the_same_svi():
    out = []
    for make in (SVI, ours):
        pyro.clear_param_store()
        torch.manual_seed(0)
        program = Program()
        svi = make(program.model, program.guide, adam(), Trace_ELBO())
        losses = []
        for i in range(8):
            if i == 4:
                svi.model = poutine.scale(program.model, scale=0.5)
            losses.append(svi.step(program.x))
        out.append(losses)
    assert out[1] == pytest.approx(out[0], rel=2e-5) and "another one" in svi.refused


class FromTheEnvironment(Program):
    def weight(self):
        return float(os.environ.get("PYROVAE_TEST_WEIGHT", "1"))


def test_the_environment():
    assert "environment" in assert_pyros(FromTheEnvironment).refused
