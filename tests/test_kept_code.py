"""Code that is compiled once for a graph: found again by programs that compute the same, and by no other."""

import gc
import importlib
import weakref

import pyro
import pyro.distributions as dist
import pytest
import torch

import pyrovae as pv
from pyrovae.evidence.core.compile_when import PAIRS, compiles, pairs_that_pay
from pyrovae.programs.compile import kept_code

K, CHUNK = 8, pv.Chunk(4, 4)
SHIFT = 0.0


class Pair:
    def __init__(self):
        self.shift, self.flags, self.weight = 0.0, {"square": False}, torch.nn.Parameter(torch.ones(2))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            loc = z * pyro.param("weight", self.weight) + self.shift + SHIFT
            if self.flags["square"]:
                loc = loc**2
            pyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 0.8).to_event(1))


@pytest.fixture
def made(monkeypatch):
    """Graphs for which code was made; they run as they were traced."""
    kept_code.forget()
    pyro.clear_param_store()
    found = []

    def compile(module, example):
        found.append(module)
        return module

    monkeypatch.setattr("torch._inductor.compile", compile)
    yield found
    kept_code.forget()


def x_of(n=8, **how):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(n), **how)


def weights(pair, x, compile=True, **options):
    options = {"num_samples": K, "chunk": CHUNK, "seed": 1} | options
    return pv.log_weights(pair.model, pair.guide, x, compile=compile, **options)


def test_a_second_call_compiles_nothing(made):
    pair = Pair()
    first = weights(pair, x_of())
    assert len(made) == 1
    assert torch.equal(weights(pair, x_of()), first) and len(made) == 1
    other = x_of().flip(0)
    torch.testing.assert_close(weights(pair, other), weights(pair, other, compile=False))
    with torch.no_grad():
        pyro.get_param_store()._params["weight"].mul_(3)
    now = weights(pair, x_of())
    assert len(made) == 1 and not torch.allclose(now, first)
    torch.testing.assert_close(now, weights(pair, x_of(), compile=False))


def change_an_attribute(pair, monkeypatch):
    pair.shift = 1.0


def change_a_container(pair, monkeypatch):
    pair.flags["square"] = True


def change_a_global(pair, monkeypatch):
    monkeypatch.setitem(globals(), "SHIFT", 0.5)


def change_a_method(pair, monkeypatch):
    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 3, 0.9).to_event(1))

    monkeypatch.setattr(Pair, "guide", guide)


def change_the_default_dtype_of_the_data(pair, monkeypatch):
    pair.dtype = torch.float64


CHANGES = [
    change_an_attribute,
    change_a_container,
    change_a_global,
    change_a_method,
    change_the_default_dtype_of_the_data,
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_program_is_never_served_with_old_code(made, monkeypatch, change):
    """Parts that do not depend on noise are no generated code, so that other code is not always needed."""
    pair = Pair()
    before = weights(pair, x_of())
    change(pair, monkeypatch)
    x = x_of(dtype=getattr(pair, "dtype", torch.float32))
    now = weights(pair, x)
    assert not torch.allclose(now, before)
    torch.testing.assert_close(now, weights(pair, x, compile=False))


@pytest.mark.filterwarnings("ignore:this program is not compiled")
def test_a_tensor_that_is_read_is_no_constant(made):
    pair = Pair()
    pair.shift = torch.tensor([0.5, -0.5])
    weights(pair, x_of())
    pair.shift = torch.tensor([2.0, 1.0])
    torch.testing.assert_close(weights(pair, x_of()), weights(pair, x_of(), compile=False))
    pair.shift.add_(1.0)
    torch.testing.assert_close(weights(pair, x_of()), weights(pair, x_of(), compile=False))


def test_a_closure_and_an_argument_make_other_code(made):
    def programs(scale):
        def model(x, more=0.0):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(2), scale).to_event(1))
                pyro.sample("x", dist.Normal(z + more, 1.0).to_event(1), obs=x)

        def guide(x, more=0.0):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x / 2, 0.8).to_event(1))

        return model, guide

    for scale, context in ((1.0, ()), (1.0, ()), (2.0, ()), (2.0, (0.5,)), (2.0, (1.5,))):
        model, guide = programs(scale)
        options = {"num_samples": K, "chunk": CHUNK}
        ours = pv.log_weights(model, guide, x_of(), *context, compile=True, **options)
        torch.testing.assert_close(ours, pv.log_weights(model, guide, x_of(), *context, **options))
    assert len(made) == 3  # another function that computes the same has the same code


def test_shapes_strides_and_settings_make_other_code(made):
    pair = Pair()
    for number, options in enumerate(({}, {"chunk": pv.Chunk(4, 2)}, {"chunk": pv.Chunk(8, 4)}), start=1):
        weights(pair, x_of(), **options)
        assert len(made) == number
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        weights(pair, x_of())
    finally:
        torch.set_num_threads(threads)
    assert len(made) == 4


def test_nothing_of_a_program_is_kept_alive(made):
    pair = Pair()
    weights(pair, x_of())
    gone = weakref.ref(pair)
    pyro.clear_param_store()
    made.clear()
    del pair
    gc.collect()
    assert gone() is None and kept_code._KEPT


def test_the_oldest_code_is_dropped(made, monkeypatch):
    monkeypatch.setattr(kept_code, "MOST", 2)
    pair = Pair()
    for size in (2, 3, 4, 2):
        weights(pair, x_of(), chunk=pv.Chunk(4, size))
    assert len(made) == 4 and len(kept_code._KEPT) == 2


def test_auto_is_decided_by_counts(made):
    assert pairs_that_pay(torch.device("cuda")) > pairs_that_pay(torch.device("cpu")) == PAIRS
    assert not compiles("auto", PAIRS - 1, PAIRS) and compiles("auto", PAIRS, PAIRS)
    assert compiles(True, 1, PAIRS) and not compiles(False, 2 * PAIRS, PAIRS)
    with pytest.raises(ValueError, match="True, False or"):
        compiles("on", 1, PAIRS)
    pair = Pair()
    weights(pair, x_of(), compile="auto")
    pv.evidence(pair.model, pair.guide, x_of(), estimators=[pv.IS(K)])
    assert not made


@pytest.mark.parametrize(
    "ask", [weights, lambda pair, x, **options: pv.evidence(pair.model, pair.guide, x, **options)]
)
def test_auto_compiles_large_jobs(made, monkeypatch, ask):
    monkeypatch.setattr(importlib.import_module("pyrovae.evidence.core.compile_when"), "PAIRS", 10)
    options = {"estimators": [pv.IS(K)], "chunk": CHUNK} if ask is not weights else {"compile": "auto"}
    ask(Pair(), x_of(), **options)
    assert len(made) == 1
