"""A compiled step is the program of now: what a look may not change, what is seen late, and fits."""

import ctypes
import functools
import math
import os
import random
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from torch import nn

import pyrovae as pv

from .against_pyro import Attribute, D, Flow, L, N, Program, adam, assert_pyros, data, ours, run

pytestmark = pytest.mark.usefixtures("interpreted")


class Running(Program):
    """A running mean in a buffer, written in place by the guide."""

    def __init__(self):
        super().__init__()
        self.norm = nn.Module()
        self.norm.register_buffer("mean", torch.zeros(D))

    def guide(self, x):
        self.norm.mean.mul_(0.9).add_(0.1 * x.mean(0))
        super().guide(x - self.norm.mean)


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
    """A number in a file, which Python cannot name: what is left to the comparison with an eager step."""

    def __init__(self, at):
        super().__init__()
        self.at, self.path = at, Path(tempfile.mkdtemp()) / "weight"
        self.path.write_text("1.0")

    def before(self, i):
        if i == self.at:
            self.path.write_text("2.0")
        return self.x

    def weight(self):
        return float(self.path.read_text())


class InMemory(Program):
    """The same in the memory of a C object: no comparison can watch it."""

    def __init__(self):
        super().__init__()
        self.memory = (ctypes.c_double * 1)(1.0)

    def weight(self):
        return self.memory[0]


def test_what_no_comparison_can_watch():
    svi = assert_pyros(InMemory)
    assert svi.compiled_share == 0 and "which no comparison can watch (test_watch.py, line" in svi.refused


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
    with pytest.warns(UserWarning, match=r"'beta' of Attribute was .* \(against_pyro.py, line"):
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
