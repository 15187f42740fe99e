"""Compiled steps on fixed tensors: what a CUDA graph captures, run on a CPU (and on CUDA, where there is one)."""

import functools
import shutil

import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import pyrovae as pv
from pyrovae.svi.cuda_graph import WARM_UP, Captured
from pyrovae.svi.fused import FusedStep

from .pairs import D, Pair

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None,
    reason="no C++ compiler: nothing compiles here",
)
N = 50  # 50 data in batches of 16: three full ones and one of 2


class Redrawn:
    """A data set whose training data change every epoch, as under dynamic binarisation."""

    def __init__(self, device="cpu"):
        self.train, self.valid = rows(device), rows(device)[:10]

    def epoch(self, epoch, seed=None):
        return (torch.rand(N, D, generator=torch.Generator().manual_seed(epoch)) > 0.5).float().to(self.train)


def rows(device="cpu"):
    return (torch.rand(N, D, generator=torch.Generator().manual_seed(1)) > 0.5).float().to(device)


ADAM = functools.partial(torch.optim.Adam, lr=1e-2)
FITS = {
    "plain": {},
    "schedules": {"lr": pv.Exponential(1e-2, 1e-3, 3), "beta": pv.Warmup(2)},
    "clipped": {"clip_norm": 1.0},
    "averaged": {"ema": 0.9},
    "groups": {"groups": {"dec*": {"lr": 1e-3}}},
    "SGD": {"optim": functools.partial(torch.optim.SGD, lr=1e-3, momentum=0.9)},
    "full batches only": {"batch_size": 25},
}


def fit(device="cpu", data=None, **options):
    pair = Pair(device)
    options = {"epochs": 3, "batch_size": 16, "seed": 2, "compile": True} | options
    return pv.fit(pair.model, pair.guide, rows(device) if data is None else data, **options)


def stepwise(data=None, **options):
    """The same run by single steps, which do not go by fixed tensors."""
    pair = Pair()
    options = {"batch_size": 16, "seed": 2, "compile": True} | options
    trainer = pv.Trainer(pair.model, pair.guide, rows() if data is None else data, **options)
    losses = [trainer.step() for _ in range(3 * trainer.batches_per_epoch)]
    return trainer, losses


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("data", [rows, Redrawn], ids=["tensor", "redrawn"])
def test_an_epoch_on_fixed_tensors_is_its_single_steps(name, data, request):
    """Bit for bit: the same graph, noise, order, rates, clipping and average."""
    if name != "plain":  # the code of one graph is that of all
        request.getfixturevalue("interpreted")
    options = FITS[name]
    run = fit(data=data(), restore_best=False, **options)
    trainer, losses = stepwise(data=data(), **options)
    own = trainer.weights(averaged=True)["parameters"]
    for name, value in run.store.state_dict().items():
        assert torch.equal(value, own[name]), name
    per_epoch = trainer.batches_per_epoch
    sizes = [trainer.batches.size(0, batch) for batch in range(per_epoch)]
    means = [
        sum(n * v for n, v in zip(sizes, losses[i : i + per_epoch], strict=True)) / sum(sizes)
        for i in range(0, len(losses), per_epoch)
    ]
    assert [row["loss"] for row in run.history] == pytest.approx(means, rel=1e-6)


class NothingReadBack(TorchDispatchMode):
    """Fails where a number is read from a tensor: what a GPU would be waited for."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default), func
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [FITS[k] for k in ("schedules", "clipped", "averaged", "groups")])
def test_a_step_reads_no_number_back(options, interpreted):
    pair = Pair()
    trainer = pv.Trainer(pair.model, pair.guide, rows(), batch_size=16, compile=True, **options)
    static = trainer.static
    trainer.run_epoch()  # brings the optimizer's state to life
    trainer._begin(static)
    with NothingReadBack():
        for step in static._steps:
            step.run()
    with pytest.raises(AssertionError, match="local_scalar"), NothingReadBack():
        float(static._losses[0])


def test_losses_wait_on_the_device_until_they_are_looked_at(interpreted):
    """A bad step in between two looks is named as the one that it was."""
    pair, x = Pair(), rows()
    trainer = pv.Trainer(pair.model, pair.guide, x, batch_size=5, compile=True, seed=3)
    trainer.static.check_every = 4
    order = trainer.batches.order(0)
    bad = order[5 * 5]  # in batch 5
    x[bad] = torch.nan
    with pytest.raises(FloatingPointError) as error:
        trainer.run_epoch()
    assert error.value.batch == 5 and error.value.step == 5 and int(bad) in error.value.indices
    assert len(trainer.losses) == 5


def test_fused_update_with_rates_on_the_device():
    one, other = (nn.Parameter(torch.ones(3)) for _ in range(2))
    updates = [FusedStep(torch.optim.AdamW([p], lr=0.3, weight_decay=0.1)) for p in (one, other)]
    for _ in range(3):
        one.grad, other.grad = torch.tensor([1.0, -2.0, 0.5]), torch.tensor([1.0, -2.0, 0.5])
        updates[0]()
        updates[1]([torch.tensor(0.3, dtype=torch.float64)])
    assert torch.equal(one, other) and not torch.equal(one, torch.ones(3))


def test_tf32_is_as_it_was_after():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with pytest.raises(KeyError), pv.tf32():
        assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32
        raise KeyError
    assert before == (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)


def test_on_a_cpu_the_body_runs_directly():
    runs = []
    captured = Captured(lambda: runs.append(1), torch.device("cpu"), list)
    captured()
    captured()
    assert len(runs) == 2 and captured.refused is None and not captured.capture


@pytest.mark.cuda
@pytest.mark.parametrize("options", FITS.values(), ids=FITS)
def test_captured_epochs_are_uncaptured_ones(options, monkeypatch):
    captured = fit("cuda", epochs=4, **options)
    monkeypatch.setattr("pyrovae.svi.cuda_graph.WARM_UP", 10**9)  # never captures
    direct = fit("cuda", epochs=4, **options)
    for name, value in captured.store.state_dict().items():
        torch.testing.assert_close(value, direct.store.state_dict()[name], rtol=1e-4, atol=1e-5)


@pytest.mark.cuda
def test_svi_captures_on_cuda():
    x = rows("cuda")

    def svi_of(pair, compile):
        store = pv.ParameterStore()  # in one store, the second would train the first one's weights
        return pv.SVI(store.bind(pair.model), store.bind(pair.guide), ADAM, Trace_ELBO(), compile=compile)

    svi, reference = svi_of(Pair("cuda"), True), svi_of(Pair("cuda"), False)
    for i in range(2 * WARM_UP + 4):
        losses = []
        for each in (svi, reference):
            torch.cuda.manual_seed(i)
            losses.append(each.step(x))
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert (
        svi._captured.graph is not None
        and svi._captured.graph._graph is not None
        and svi._captured.graph.refused is None
    )


@pytest.mark.cuda
def test_an_epoch_on_cuda_waits_once():
    pair = Pair("cuda")
    trainer = pv.Trainer(pair.model, pair.guide, rows("cuda"), batch_size=16, compile=True)
    trainer.run_epoch()
    trainer.run_epoch()
    static = trainer.static
    trainer._begin(static)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in static._steps:
            step.run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
