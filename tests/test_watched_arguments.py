"""A compiled step takes the arguments of now: numbers, containers, texts, strides."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
from pyro import poutine

from .against_pyro import L, N, Program, assert_pyros, data

pytestmark = pytest.mark.usefixtures("interpreted")


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


# Numbers that Python computes with -------------------------------------------------------------------------

CYCLE = 100 / 3
RULES = {
    # Rounded to float32, 100 % (100 / 3) is 4e-6 in place of 33.3.
    "cyclical": (lambda t: 0.05 + (t % CYCLE) / CYCLE, 11),
    "quotient": (lambda t: t / 1000 // 0.1 * 0.1 + 0.1, 11),
    "whole quotient": (lambda t: -(-t // 7) + 1, 11),
    "seconds": (lambda t: (t + 1.7e9 - 1.7e9) / 60 + 0.1, 11),
    "beyond 2**63": (lambda t: t * 10**19 / 10**21 + 0.1, 11),
    "a power": (lambda t: 1 - 0.9**t, 11),
    # One graph a number, four in all; each number comes for three steps, of which the first is eager.
    "a table": (lambda t: {97: 5.0}.get(t, 0.1), 8),
    "a set": (lambda t: 5.0 if t in {97, 99} else 0.1, 8),
    "a text": (lambda t: float(f"{t}") / 100, 8),
    "a class": (lambda t: 5.0 if isinstance(t, int) else 0.1, 8),
    "a whole part": (lambda t: int(t) / 100, 8),
}


class Ruled(Positional):
    def __init__(self, rule, slow):
        super().__init__()
        self.rule, self.slow = rule, slow

    def before(self, i):
        return (self.x, 97 + i // 3 if self.slow else 95 + i, {})

    def model(self, x, t):
        super().model(x, self.rule(t))

    def guide(self, x, t):
        super().guide(x, self.rule(t))


@pytest.mark.parametrize("name", RULES)
def test_a_number_is_one_of_pythons(name):
    rule, compiled = RULES[name]
    svi = assert_pyros(lambda: Ruled(rule, compiled == 8))
    assert round(12 * svi.compiled_share) == compiled
