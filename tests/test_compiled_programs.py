"""Programs whose steps compile: enumeration, dropout, Bayesian layers, flows; Jit, handlers."""

import contextlib
import functools
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

from .against_pyro import D, Flow, Global, L, Program, adam, assert_pyros, data, ours, run

pytestmark = pytest.mark.usefixtures("interpreted")

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
