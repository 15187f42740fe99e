"""A compiled step is the program of now: state, code and hooks that change between two steps."""

import random
import re

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from .against_pyro import Attribute, D, Global, L, Program, assert_pyros

pytestmark = pytest.mark.usefixtures("interpreted")

CONFIG = {"beta": 1.0, "deep": [1.0, {"weight": 1.0}]}


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


class Exchanged(Program):
    """A tensor in the place of another one that looks the same."""

    def __init__(self):
        super().__init__()
        self.beta = torch.tensor(1.0)

    def before(self, i):
        if i == 6:
            self.beta = torch.tensor(3.0)
        return self.x

    def weight(self):
        return self.beta


class Tabled(Program):
    def __init__(self):
        super().__init__()
        self.table = {"beta": 1.0}

    def before(self, i):
        if i == 6:
            self.table = {"beta": 3.0}
        return self.x

    def weight(self):
        return self.table["beta"]


@pytest.mark.parametrize(
    ("case", "words"),
    [(Exchanged, "'beta' of .* is another tensor"), (Tabled, "'table' of .* is another dict")],
)
def test_what_was_exchanged_for_its_like_is_called_another(case, words):
    assert re.search(words, assert_pyros(case).refused)


class OfNumpy(Program):
    def weight(self):
        return 1.0 + 0.0 * float(self.enc.bias.detach().numpy()[0])


def test_numpy_in_a_program_is_named():
    said = assert_pyros(OfNumpy).refused
    assert said.startswith(
        "it hands tensors to NumPy (.numpy()), which cannot be in a graph; try torch's functions"
    )
    assert "Trace Shapes" not in said and "test_watched_changes.py, line" in said


class Failing(Program):
    """Fails under the tracer alone, at a site."""

    def weight(self):
        if type(self.x[:1] + next(self.enc.parameters()).flatten()[:1]) is not torch.Tensor:
            raise RuntimeError("a first line\nand a second one")
        return 1.0


def test_an_error_under_the_tracer_is_told_in_its_first_line():
    said = assert_pyros(Failing).refused
    assert said.startswith("RuntimeError: a first line (test_watched_changes.py, line")
