"""Losses that are read when somebody looks at them, and `pv.SVI(lazy=True)` on a device that is taken for a GPU."""

import copy
import functools
import json
import math
import numbers
import shutil
import statistics

import numpy as np
import pytest
import torch
from pyro.infer import Trace_ELBO

import pyrovae as pv
from pyrovae.svi.cuda_graph import Captured
from pyrovae.svi.pending import RING, Losses, PendingLoss

from .pairs import Pair
from .test_cuda_rules import bits

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None,
    reason="no C++ compiler: nothing compiles here",
)
VALUES = [0.5, -2.0, 3.25, 1e6]


@pytest.fixture
def counted(monkeypatch):
    """Losses of `VALUES`, and how often the device was waited for."""
    reads = []
    losses = Losses(lambda bad: reads.append(("bad", bad)))
    pending = [losses.add(torch.tensor(v)) for v in VALUES]
    read = losses.read
    for p in pending:
        p._read = lambda: (reads.append("read"), read())
    return pending, reads


LOOKS = {
    "float": float,
    "print": str,
    "format": lambda a: f"{a:.3e}",
    "old format": lambda a: "%.2f" % a,  # noqa: UP031
    "round": lambda a: round(a, 1),
    "math": lambda a: (math.floor(a), math.ceil(a), math.trunc(a), math.exp(-abs(a)), math.isfinite(a)),
    "arithmetic": lambda a: (a + 1, 1 - a, a * a, 2 / a, a // 2, a % 3, a**2, 2 ** -abs(a), -a, +a),
    "comparison": lambda a: (a < 1, a <= a, a == 0.5, a != 0.5, a > 3, a <= 3, bool(a), hash(a)),
    "integer": int,
    "numpy": lambda a: (np.asarray(a, dtype=float).tolist(), np.float64(3.0) * a),
    "tensor": lambda a: (torch.tensor(3.0) * float(a)).item(),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_it_is_the_number(counted, look):
    pending, reads = counted
    assert not reads
    assert [look(p) for p in pending] == [look(v) for v in VALUES]
    assert reads == ["read"], "one wait for all"


def test_many_at_once(counted):
    pending, _ = counted
    assert sum(pending) == sum(VALUES) and max(pending) == max(VALUES)
    assert statistics.fmean(pending) == statistics.fmean(VALUES) and sorted(pending) == sorted(VALUES)
    assert np.mean(pending) == np.mean(VALUES) and np.array(pending, dtype=float).tolist() == VALUES
    assert all(isinstance(p, numbers.Real) and not isinstance(p, float) for p in pending)
    with pytest.raises(TypeError):
        json.dumps(pending[0])
    assert json.dumps(pending[0].item()) == "0.5"


def test_full_places_are_read_and_old_losses_keep_their_numbers():
    losses, place = Losses(lambda bad: None), torch.zeros(())
    pending = []
    for i in range(2 * RING + 3):
        place.fill_(float(i))
        pending.append(losses.add(place))
    assert [p.value is None for p in pending] == [False] * (2 * RING) + [True] * 3
    assert [float(p) for p in pending] == list(range(2 * RING + 3))


def test_losses_nobody_keeps_are_let_go():
    losses, place = Losses(lambda bad: None), torch.zeros(())
    for _ in range(RING - 1):
        losses.add(place)
    kept = losses.add(place + 7)
    assert float(kept) == 7.0


@pytest.fixture
def on_a_gpu(monkeypatch):
    """A CPU is taken for a device of captured steps, whose graphs are run directly."""
    monkeypatch.setattr("pyrovae.devices.CAPTURES", {"cpu"})
    monkeypatch.setattr("pyrovae.svi.captured_step.Captured", functools.partial(Captured, capture=False))


def steps(lazy, number=8, **options):
    pair, store = Pair(), pv.ParameterStore()
    adam = functools.partial(torch.optim.Adam, lr=1e-2)
    svi = pv.SVI(
        store.bind(pair.model),
        store.bind(pair.guide),
        adam,
        Trace_ELBO(),
        compile=True,
        lazy=lazy,
        **options,
    )
    losses = []
    for i in range(number):
        torch.manual_seed(i)
        losses.append(svi.step(bits()))
    return svi, losses, store


@needs_compiler
def test_lazy_steps_are_the_same_steps(on_a_gpu):
    svi, losses, store = steps(True)
    _, expected, other = steps(False)
    assert [type(v) for v in losses] == [float, *[PendingLoss] * 7] and {type(v) for v in expected} == {float}
    assert losses[-1].value is None and [float(v) for v in losses] == expected
    for name, value in store.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    copied = copy.deepcopy(svi)
    assert copied._losses is not svi._losses and copied._losses._found.__self__ is copied


@needs_compiler
def test_a_loss_that_is_no_number_changes_nothing_and_is_said_when_it_is_read(on_a_gpu):
    svi, losses, store = steps(True, 10)  # the next one is not compared with an eager step
    before = {k: v.clone() for k, v in store.state_dict().items()}
    bad = bits()
    bad[0] = torch.nan
    loss = svi.step(bad)
    assert svi.refused is None
    with pytest.warns(UserWarning, match="which changed nothing"):
        assert math.isnan(loss)
    for name, value in store.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert svi.discarded and type(svi.step(bits())) is float
    assert all(math.isfinite(v) for v in losses)


def test_without_a_graph_losses_are_floats():
    assert {type(v) for v in steps(True, 3)[1]} == {float}
