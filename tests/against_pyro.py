"""A small program whose steps, compiled, are held against those of `pyro.infer.SVI` under the same seed."""

import random
import warnings

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


def assert_ends_as_pyro(model, guide, x, error):
    """Both end in an error of Pyro's validation, at the same step, ours after compiled ones."""
    ended = []
    for make in (SVI, ours):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        svi = make(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
        steps = 0
        with pytest.raises(ValueError, match=error):
            while steps < 2000:
                svi.step(x)
                steps += 1
        ended.append(steps)
    assert ended[0] == ended[1] > 10
    assert svi.compiled_share > 0.5


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
