"""Each kind of arguments has a graph of its own; draws whose law the program computes."""

import argparse
import copy
import math
import warnings
from typing import NamedTuple

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from torch import nn

import pyrovae as pv

from .against_pyro import D, L, N, Program, assert_pyros, data

pytestmark = pytest.mark.usefixtures("interpreted")


class Sizes(Program):
    """Batches of 3 sizes, in turn."""

    sizes = (N, 4, 7)

    def before(self, i):
        return data(self.sizes[i % len(self.sizes)], seed=i)


class Turning(Program):
    """A flag that is no number, and a label that comes with some batches alone."""

    def before(self, i):
        return (self.x, {"label": self.x[:, :1] if i % 3 == 1 else None, "name": "ab"[i % 2]})

    def model(self, x, label, name):
        with poutine.scale(scale=2.0 if name == "a" else 1.0):
            super().model(x if label is None else x * label)

    def guide(self, x, label, name):
        with poutine.scale(scale=2.0 if name == "a" else 1.0):
            super().guide(x)


@pytest.mark.parametrize(("case", "kinds"), [(Sizes, 3), (Turning, 4)])
def test_each_kind_has_its_graph(case, kinds):
    svi = assert_pyros(case, steps=24)
    assert svi.refused is None and svi.compiled_share == (24 - kinds) / 24


class ManySizes(Sizes):
    sizes = (3, 4, 5, 6, 7, 8)


class NeverTheSame(Program):
    """An object in place of a number: another one at each step."""

    def before(self, i):
        return (self.x, {"weight": (lambda: 1.0 + i)})

    def model(self, x, weight):
        with poutine.scale(scale=weight()):
            super().model(x)

    def guide(self, x, weight):
        with poutine.scale(scale=weight()):
            super().guide(x)


@pytest.mark.parametrize(("case", "share"), [(ManySizes, 12 / 24), (NeverTheSame, 0.0)])
def test_kinds_beyond_the_limit_run_eagerly_which_is_said(case, share):
    svi = assert_pyros(case, steps=24)
    assert svi.compiled_share == share and "kinds" in svi.refused


class Partly(Program):
    """With labels one graph; without them its course depends on values."""

    def before(self, i):
        return (self.x, {"y": None if i % 2 else self.x})

    def model(self, x, y):
        scale = 1.0
        if y is None and self.dec.weight.sum() > -1000:
            scale = 2.0
        with poutine.scale(scale=scale):
            super().model(x)

    def guide(self, x, y):
        super().guide(x)


def test_one_kind_is_refused_and_another_is_not():
    svi = assert_pyros(Partly, steps=12)
    assert svi.compiled_share == 5 / 12 and not svi.discarded
    assert "course depends" in svi.refused and "test_kinds.py, line" in svi.refused


class Settings(Program):
    """An object among the arguments, changed in place."""

    def __init__(self):
        super().__init__()
        self.settings = argparse.Namespace(beta=1.0)

    def before(self, i):
        if i == 6:
            self.settings.beta = 3.0
        return (self.x, {"settings": self.settings})

    def model(self, x, settings):
        with poutine.scale(scale=settings.beta):
            super().model(x)

    def guide(self, x, settings):
        with poutine.scale(scale=settings.beta):
            super().guide(x)


def test_an_argument_that_is_changed_in_place():
    svi = assert_pyros(Settings)
    assert svi.compiled_share == 5 / 12 and "'beta'" in svi.refused


class Lengths(Program):
    """The course depends on whole numbers of an argument."""

    other = 99

    def __init__(self):
        super().__init__()
        self.lengths = torch.tensor([3, 2, 3] * (N // 3))

    def before(self, i):
        if i == self.other:
            self.lengths = torch.tensor([5, 2, 3] * (N // 3))
        return (self.x, self.lengths, {})

    def model(self, x, lengths):
        assert lengths.max() <= D
        pyro.module("dec", self.dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
            logits = self.dec(z)
            for t in range(lengths.max()):
                with poutine.mask(mask=t < lengths):
                    pyro.sample(f"x_{t}", dist.Bernoulli(logits=logits[:, t]), obs=x[:, t])

    def guide(self, x, lengths):
        super().guide(x)


class OtherLengths(Lengths):
    other = 6


class InPlace(Lengths):
    def before(self, i):
        if i == 6:
            self.lengths[0] = 5
        return (self.x, self.lengths, {})


@pytest.mark.parametrize(("case", "steps"), [(Lengths, 11), (OtherLengths, 10), (InPlace, 10)])
def test_whole_numbers_that_stay_are_part_of_a_graph(case, steps):
    svi = assert_pyros(case)
    assert svi.refused is None and round(12 * svi.compiled_share) == steps


class OneMask(Program):
    """As many elements are taken as are set in a mask."""

    def model(self, x):
        pyro.module("dec", self.dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=self.dec(z)).to_event(1), obs=x)
        pyro.factor("more", x[x > 0].sum())


def test_shapes_that_depend_on_values():
    svi = assert_pyros(OneMask)
    assert svi.compiled_share == 0 and "shape of what it computes" in svi.refused
    assert "test_kinds.py, line" in svi.refused


# Draws whose law the program computes -------------------------------------------------------------------------


class Gammas:
    """Draws by implicit gradients, one's law given by another's; normals between."""

    def __init__(self):
        self.x = torch.poisson(3 * torch.ones(N, D), generator=torch.Generator().manual_seed(0))
        self.net = nn.Linear(D, L)

    def before(self, i):
        return self.x

    def model(self, x):
        rate = pyro.sample("rate", dist.Gamma(2.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            s = pyro.sample("s", dist.Gamma(2.0, rate))
            mean = (s * z.exp()).unsqueeze(-1).expand(-1, D)
            pyro.sample("x", dist.Poisson(mean).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("net", self.net)
        shape = pyro.param("shape", torch.tensor(2.0), constraint=dist.constraints.positive)
        rate = pyro.sample("rate", dist.Gamma(shape, 1.0))
        with pyro.plate("data", len(x)):
            loc, raw = self.net(x).unbind(-1)
            z = pyro.sample("z", dist.Normal(0.1 * loc, 0.5))
            pyro.sample("s", dist.Gamma(1 + raw.sigmoid() + z.sigmoid(), 1.0 + rate))


class Topics:
    """Dirichlet and Beta."""

    def __init__(self):
        self.x = data()

    def before(self, i):
        return self.x

    def model(self, x):
        with pyro.plate("components", 3):
            w = pyro.sample("w", dist.Dirichlet(torch.ones(D)))
            b = pyro.sample("b", dist.Beta(1.0, 2.0))
        p = 0.05 + 0.9 * (w.max(-1)[0] * b).mean()
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Bernoulli(p.expand(D)).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("components", 3):
            c = pyro.param("c", 2 * torch.ones(3, D), constraint=dist.constraints.positive)
            a = pyro.param("a", 2 * torch.ones(3), constraint=dist.constraints.greater_than(0.5))
            pyro.sample("w", dist.Dirichlet(c))
            pyro.sample("b", dist.Beta(a, 2.0))


class Classes(Program):
    """A class that is drawn in the model alone, under a prior of its own."""

    def model(self, x):
        super().model(x)
        with pyro.plate("labels", len(x)):
            pyro.sample("k", dist.Categorical(logits=self.enc(x)), infer={"enumerate": "parallel"})


LAWS = {Gammas: Trace_ELBO, Topics: TraceMeanField_ELBO, Classes: lambda: TraceEnum_ELBO(max_plate_nesting=1)}


@pytest.mark.parametrize("case", LAWS)
def test_draws_whose_law_the_program_computes(case):
    svi = assert_pyros(case, loss=LAWS[case])
    assert svi.compiled_share == 11 / 12 and svi.refused is None


class Shifted(Topics):
    """Another law of the draws from some step on."""

    more = 0.0

    def before(self, i):
        if i == 6:
            self.more = 2.0
        return self.x

    def guide(self, x):
        with pyro.plate("components", 3):
            c = pyro.param("c", 2 * torch.ones(3, D), constraint=dist.constraints.positive)
            pyro.sample("w", dist.Dirichlet(c + self.more))
            pyro.sample("b", dist.Beta(2.0 * torch.ones(3), 2.0))


def test_a_second_law_is_another_program():
    svi = assert_pyros(Shifted)
    assert svi.compiled_share == 5 / 12 and "'more'" in svi.refused


class Row(NamedTuple):
    x: torch.Tensor
    weight: float


class Rows(Program):
    def before(self, i):
        return (Row(data(seed=i), 1.0 + i), {})

    def model(self, row):
        with poutine.scale(scale=row.weight):
            super().model(row.x)

    def guide(self, row):
        with poutine.scale(scale=row.weight):
            super().guide(row.x)


def test_named_tuples():
    svi = assert_pyros(Rows)
    assert svi.compiled_share == 11 / 12 and svi.refused is None


class ByNumPy(Program):
    """Numbers of NumPy are numbers."""

    def before(self, i):
        return (self.x, np.float64(1.0 + i), np.int64(2 + i), {})

    def model(self, x, a, b):
        with poutine.scale(scale=a / b):
            super().model(x)

    def guide(self, x, a, b):
        with poutine.scale(scale=a / b):
            super().guide(x)


class Waiting(Program):
    """Draws of fixed laws other than the normal and the uniform."""

    def model(self, x):
        pyro.sample("t", dist.Exponential(1.0))
        pyro.sample("c", dist.HalfCauchy(1.0))
        super().model(x)

    def guide(self, x):
        pyro.sample(
            "t", dist.Exponential(pyro.param("rate", torch.ones(()), constraint=dist.constraints.positive))
        )
        pyro.sample(
            "c", dist.HalfCauchy(pyro.param("wide", torch.ones(()), constraint=dist.constraints.positive))
        )
        super().guide(x)


@pytest.mark.parametrize("case", [ByNumPy, Waiting])
def test_more_programs_compile(case):
    svi = assert_pyros(case)
    assert svi.compiled_share == 11 / 12 and svi.refused is None


def test_a_gradient_that_is_there_is_added_to():
    """A penalty's own backward before a step, as it is done with Pyro's SVI."""

    class Penalty(Program):
        def before(self, i):
            if i in (5, 6):
                self.dec.weight.square().sum().mul(100).backward()
            return self.x

    svi = assert_pyros(Penalty)
    assert svi.compiled_share == 9 / 12 and svi.refused is None


@pytest.mark.parametrize("optim", [lambda: pyro.optim.Adam({"lr": 0.02}), lambda: torch.optim.Adam])
def test_a_copy_goes_on_by_itself(optim):
    pyro.clear_param_store()
    torch.manual_seed(0)
    program = Program()
    svi = pv.SVI(program.model, program.guide, optim(), Trace_ELBO(), compile=True)
    first = [svi.step(program.x) for _ in range(4)]
    other = copy.deepcopy(svi)
    assert svi.compiled_share == 3 / 4 and all(map(math.isfinite, first))
    torch.manual_seed(3)
    ours = [svi.step(program.x) for _ in range(4)]
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert math.isfinite(other.step(program.x)) and svi.compiled_share == 7 / 8 and len(ours) == 4
