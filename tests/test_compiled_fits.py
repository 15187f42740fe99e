"""`pv.fit(compile=True)` gives the weights of an eager fit whatever happens to the program between two epochs."""

import functools
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyrovae as pv

from .pairs import D, L, Pair

pytestmark = pytest.mark.usefixtures("interpreted")

EPOCHS, AT = 5, 2
WEIGHT = [1.0]


def bits(n=24):
    return (torch.rand(n, D, generator=torch.Generator().manual_seed(1)) > 0.5).float()


class Changing(Pair):
    """A pair that reads a global, an attribute and its class."""

    factor = 1.0

    def __init__(self):
        super().__init__()
        self.shift = 0.0

    def model(self, x):
        pyro.module("dec", self.dec)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), WEIGHT[-1]).to_event(1))
            logits = self.factor * self.dec(z) + self.shift
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)


def new_module(pair, x):
    torch.manual_seed(5)
    pair.dec = nn.Linear(L, D)


# What happens once, after an epoch, and whether the compiled step goes on.
EVENTS = {
    "nothing": (lambda pair, x: None, True),
    "a global": (lambda pair, x: WEIGHT.append(1.5), False),
    "an attribute": (lambda pair, x: setattr(pair, "shift", 0.3), False),
    "an attribute over its class's": (lambda pair, x: setattr(pair, "factor", 0.5), False),
    "another module under the name": (new_module, False),
    "an activation": (lambda pair, x: pair.dec.register_forward_hook(lambda m, i, o: o.tanh()), False),
    "a hook of a gradient": (lambda pair, x: pair.dec.weight.register_hook(lambda g: 0 * g), False),
    "a frozen parameter": (lambda pair, x: pair.dec.weight.requires_grad_(False), False),
    "other numbers in a parameter": (lambda pair, x: pair.dec.weight.data.fill_(0.3), True),
    "other memory of a parameter": (lambda pair, x: setattr(pair.dec.weight, "data", torch.ones(D, L)), True),
    "other data": (lambda pair, x: x.copy_(1 - x), True),
    "another fit": (lambda pair, x: pv.fit(*programs(Pair()), bits(), epochs=1, compile=True), True),
    "the generator": (lambda pair, x: torch.manual_seed(7), True),
}
OPTIMIZERS = {
    "Adam": functools.partial(torch.optim.Adam, lr=1e-2),
    "momentum": functools.partial(torch.optim.SGD, lr=1e-4, momentum=0.9),
    "Pyro's": pyro.optim.ClippedAdam({"lr": 1e-2, "clip_norm": 1.0}),
}


def programs(pair):
    return pair.model, pair.guide


def fitted(event, optim, compile):
    del WEIGHT[1:]
    pair, x = Changing(), bits()

    def on_epoch(row):
        if row["epoch"] == AT:
            event(pair, x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "is no longer this program's"
        return pv.fit(
            *programs(pair), x, optim=optim, epochs=EPOCHS, batch_size=8, compile=compile, on_epoch=on_epoch
        )


@pytest.mark.parametrize("optim", OPTIMIZERS)
@pytest.mark.parametrize("name", EVENTS)
def test_the_compiled_fit_is_the_eager_one(name, optim):
    event, goes_on = EVENTS[name]
    eager = fitted(event, OPTIMIZERS[optim], False)
    ours = fitted(event, OPTIMIZERS[optim], True)
    weights = ours.store.state_dict()
    for key, value in eager.store.state_dict().items():
        torch.testing.assert_close(weights[key], value, msg=lambda m, key=key: f"{key}: {m}")
    assert (ours.refused is None) == goes_on
    share = 1.0 if goes_on else (AT + 1) / EPOCHS
    assert ours.compiled_share == pytest.approx(share) or (not goes_on and ours.compiled_share < 1)


def test_context_of_any_kind_is_compiled():
    """It ran eagerly, and nothing said so."""

    class Labelled(Pair):
        def model(self, x, y):
            pyro.module("dec", self.dec)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
                logits = self.dec(z) + y["label"].unsqueeze(-1).float() * y["by"]
                pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

        def guide(self, x, y):
            super().guide(x)

    x = bits(20)  # a smaller last batch
    y = {"label": pv.per_datum(torch.arange(20) % 2), "by": 0.5}
    fits = [
        pv.fit(*programs(Labelled()), (x, y), epochs=2, batch_size=8, compile=compile)
        for compile in (False, True)
    ]
    assert fits[1].refused is None and fits[1].compiled_share == pytest.approx(2 / 3)
    for key, value in fits[0].store.state_dict().items():
        torch.testing.assert_close(fits[1].store.state_dict()[key], value)
