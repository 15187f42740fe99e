"""The rules of CUDA kernels and graphs, held on a CPU for each family, objective and optimizer."""

import functools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from torch import nn

import pyrovae as pv
from pyrovae.inference.options.building import build, build_objective
from pyrovae.inference.options.options import ModelOptions
from pyrovae.objectives import BetaELBO, FreeBits
from pyrovae.objectives.compile.compiled import CompiledObjective
from pyrovae.programs import capture_parameters, module_mode
from pyrovae.programs.compile.tracing import UntraceableError
from pyrovae.svi import fused
from pyrovae.svi.cuda_graph import Captured
from pyrovae.svi.fused import FusedStep
from pyrovae.svi.static_step import StaticStep
from pyrovae.training.batches.static_epoch import StaticEpoch
from pyrovae.training.state.averaging import MovingAverage

from .cuda_rules import PRETENDED, Broken, CudaRules, Mover, Replays, pretended
from .pairs import D, L, Pair
from .small import FAMILIES, SMALL

# They read a number back, or a shape: these steps are not captured, which is said.
NOT_CAPTURED = {
    "low rank": ({**SMALL, "guide": "low-rank"}, "_linalg_check_errors"),
    "couplings": (
        {**SMALL, "prior": "flow-coupling", "flow_hidden": (4,)},
        "a mask as an index",
    ),  # not traced
}
OBJECTIVES = {
    "particles": lambda: Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1),
    "looped particles": lambda: Trace_ELBO(num_particles=2),
    "mean-field": TraceMeanField_ELBO,
    "renyi": lambda: RenyiELBO(alpha=0.5, num_particles=4, vectorize_particles=True, max_plate_nesting=1),
    "iwae": lambda: build_objective("iwae"),
    "dreg": lambda: build_objective("dreg"),
    "stl": lambda: build_objective("stl"),
    "beta, free bits": lambda: BetaELBO(FreeBits(TraceMeanField_ELBO(), 0.3), 0.7),
}
OPTIMIZERS = {
    "Adam": torch.optim.Adam,
    "AdamW": functools.partial(torch.optim.AdamW, weight_decay=0.1),
    "two groups": lambda ps: torch.optim.Adam([{"params": ps[:1], "lr": 0.1}, {"params": ps[1:]}]),
}


def clipped(parameters):
    nn.utils.clip_grad_norm_(parameters, 1.0)


def objective_of(model, guide, x, objective, move=True):
    """The compiled objective as it is traced, on the pretended device, and its parameters by name."""
    store = pv.ParameterStore()
    model, guide = store.bind(model), store.bind(guide)
    with (
        store.active(),
        module_mode(model, guide, training=True) as modules,
        capture_parameters() as used,
        pyro.validation_enabled(False),
    ):
        Trace_ELBO().loss(model, guide, x)
    if move:
        mover = Mover()
        for module in modules:
            mover.module(module)
        mover.store(store)
        x, used = mover.tensor(x), {name: mover.tensor(p) for name, p in used.items()}
    with pyro.validation_enabled(False):
        return CompiledObjective(objective, model, guide, (x,), used, modules, generate=False), used, x


def step_of(model, guide, x, objective, optimizer=torch.optim.Adam, before_step=None):
    compiled, _, x = objective_of(model, guide, x, objective)
    update = FusedStep(optimizer(compiled.parameters))
    return StaticStep(compiled, update, (x,), before_step)


def bits():
    return (torch.rand(8, D, generator=torch.Generator().manual_seed(1)) > 0.5).float()


@pytest.fixture(scope="module")
def digits():
    return pv.data.load("digits")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_of_each_family_keeps_the_rules(digits, name):
    pair = build(ModelOptions(**FAMILIES[name]), digits, 0)
    with pretended():
        step = step_of(pair.model, pair.guide, digits.train[:8], Trace_ELBO(), before_step=clipped)
        with CudaRules():
            step()


@pytest.mark.parametrize("name", NOT_CAPTURED)
def test_what_cannot_be_captured_is_known(digits, name):
    options, why = NOT_CAPTURED[name]
    pair = build(ModelOptions(**options), digits, 0)
    with pretended(), pytest.raises((Broken, UntraceableError), match=why):
        step = step_of(pair.model, pair.guide, digits.train[:8], Trace_ELBO())
        with CudaRules():
            step()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_of_each_objective_keeps_the_rules(name):
    pair = Pair()
    with pretended():
        step = step_of(pair.model, pair.guide, bits(), OBJECTIVES[name]())
        with CudaRules():
            step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_of_each_optimizer_keeps_the_rules(name):
    pair = Pair()
    with pretended():
        step = step_of(pair.model, pair.guide, bits(), Trace_ELBO(), OPTIMIZERS[name], clipped)
        assert step.update.fuses
        with CudaRules():
            step()


class Whole:
    """Batches of data that stay on their device."""

    sliced, feed, batch_size, num_data, per_epoch = True, None, 4, 8, 2

    def __init__(self, x):
        self.x = x

    def whole(self, epoch):
        return (self.x,)

    def order(self, epoch):
        return torch.randperm(8).to(self.x.device)


def epoch_of(pair, move):
    """An epoch of two steps with a changing KL weight and averaged weights."""
    objective = BetaELBO(Trace_ELBO(), 1.0)
    compiled, used, x = objective_of(pair.model, pair.guide, bits()[:4], objective, move)
    svi = pv.SVI(pair.model, pair.guide, torch.optim.Adam, objective, compile=False)
    average = MovingAverage(lambda: used, 0.9)
    return StaticEpoch(svi, Whole(torch.cat([x, x])), [compiled], average, used, 0)


def test_an_epoch_keeps_the_rules():
    with pretended():
        epoch = epoch_of(Pair(), True)
        assert epoch._steps[0].run.capture
        epoch.begin(0, 0, [[1e-3, 0.5, 0.1], [1e-3, 1.0, 0.1]])
        for _ in range(2):
            with CudaRules():
                epoch._body(epoch._steps[0])


def runs_of(epoch, number=4):
    """Steps of several epochs, their rates changing; the first makes the optimizer's state, and is not captured."""
    replays = Replays()
    for i in range(number):
        epoch.begin(i, 0, [[1e-3 / (i + 1), 0.1 * i, 0.1], [1e-4, 0.3, 0.2]])
        for batch in range(2):
            epoch._seek(batch)
            replays.run(lambda: epoch._body(epoch._steps[0]))
    return replays


def test_a_replay_is_the_step_that_would_run():
    epoch = epoch_of(Pair(), False)
    replays = runs_of(epoch)
    replays.check(first=1)
    assert len(replays.runs[1]) > 50


def test_a_frozen_rate_and_a_replaced_tensor_are_found(monkeypatch):
    """A captured graph would go on with the rate, and with the average, of its capture."""
    epoch = epoch_of(Pair(), False)
    update = epoch._steps[0].step.update
    monkeypatch.setattr(type(update), "__call__", lambda self, rates, skip: self.optimizer.step())
    update.optimizer.param_groups[0]["lr"] = 1e-3
    replays = runs_of(epoch, 1)
    update.optimizer.param_groups[0]["lr"] = 1e-4
    epoch._seek(0)
    replays.run(lambda: epoch._body(epoch._steps[0]))
    with pytest.raises(Broken, match="would take"):
        replays.check(first=1)
    monkeypatch.undo()
    epoch = epoch_of(Pair(), False)
    replays = runs_of(epoch, 1)
    epoch.average.values = {k: v.clone() for k, v in epoch.average.values.items()}
    epoch._seek(0)
    replays.run(lambda: epoch._body(epoch._steps[0]))
    with pytest.raises(Broken, match="outside"):
        replays.check(first=1)


# Faults that were there, put back ------------------------------------------------------------------


class Bilinear:
    """Logits by an einsum, whose gradient by w comes transposed."""

    def __init__(self):
        torch.manual_seed(0)
        self.w, self.v = nn.Parameter(torch.randn(D, L)), nn.Parameter(torch.randn(D, L))

    def model(self, x):
        w = pyro.param("w", self.w)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(L), 1.0).to_event(1))
            logits = torch.einsum("oi,bi->bo", w, z)
            pyro.sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=x)

    def guide(self, x):
        v = pyro.param("v", self.v)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x @ v, 1.0).to_event(1))


@pytest.mark.parametrize("fault", [False, True])
def test_gradients_in_another_order_are_caught(monkeypatch, fault):
    if fault:
        monkeypatch.setattr("pyrovae.programs.compile.compiled_loss.strided_like", lambda value, like: value)
        monkeypatch.setattr("pyrovae.svi.adam_state.Bound.check_gradients", lambda self, called: None)
    pair = Bilinear()
    with pretended():
        step = step_of(pair.model, pair.guide, bits(), Trace_ELBO())
        if fault:
            with pytest.raises(Broken, match="grads"), CudaRules():
                step()
        else:
            with CudaRules():
                step()


def eager_state(optimizer):
    """As torch's own steps leave it: the number of steps on the CPU."""
    for p in optimizer.param_groups[0]["params"]:
        p.grad = torch.zeros_like(p)
    optimizer.step()
    optimizer.zero_grad()


def loaded_state(optimizer):
    """As a checkpoint leaves it, whose tensors are on the CPU."""
    eager_state(optimizer)
    state = optimizer.state_dict()
    for own in state["state"].values():
        own.update({k: torch.zeros(v.shape) for k, v in own.items()})
    optimizer.load_state_dict(state)


def of_the_kernel(optimizer):
    """As our own steps leave it."""
    for p in optimizer.param_groups[0]["params"]:
        fused.bring(p, optimizer.state[p])


@pytest.mark.parametrize("fault", [False, True])
@pytest.mark.parametrize("make", [eager_state, loaded_state, of_the_kernel])
def test_steps_counted_on_the_cpu_are_caught(monkeypatch, make, fault):
    pair = Pair()
    with pretended():
        step = step_of(pair.model, pair.guide, bits(), Trace_ELBO())
        make(step.update.optimizer)
        states = step.update.optimizer.state.values()
        if make is not of_the_kernel:
            assert {s["step"].device.type for s in states} == {"cpu"}
        if fault and make is not of_the_kernel:
            monkeypatch.setattr(fused, "bring", lambda p, state, name: None)
            with pytest.raises(Broken, match="state_steps"), CudaRules(warm_up=True):
                step()
            return
        with CudaRules(warm_up=True):
            step()
        assert {s["step"].device.type for s in states} == {PRETENDED}
        with CudaRules():
            step()


def test_rates_of_another_dtype_are_caught(monkeypatch):
    """The kernel of a CPU reads doubles, that of a GPU floats."""
    pair = Pair()
    with pretended():
        monkeypatch.setattr("pyrovae.svi.static_step.captures", lambda device: False)
        step = step_of(pair.model, pair.guide, bits(), Trace_ELBO())
        with pytest.raises(Broken, match=r"lr is torch\.float64"), CudaRules():
            step()


@pytest.mark.parametrize(
    "body",
    [
        lambda x: float(x.sum()),
        lambda x: x[x > 0],
        lambda x: x + torch.ones(3),
        lambda x: x + torch.tensor(1.0),
        lambda x: x.cpu(),
        lambda x: torch.zeros(3),
        lambda x: x.normal_(generator=torch.Generator()),
        lambda x: torch.linalg.cholesky(x.outer(x)),
    ],
)
def test_the_rules_can_be_broken(body):
    x = torch.ones(3, device=PRETENDED)
    with pytest.raises((Broken, RuntimeError, NotImplementedError)) as error, CudaRules():
        body(x)
    assert isinstance(error.value, Broken) or "meta" in str(error.value)
    with CudaRules():
        x.normal_().exp().sum()


def test_a_step_that_is_not_captured_says_so(monkeypatch):
    class Refuses:
        def __init__(self, graph):
            pass

        def __enter__(self):
            raise RuntimeError("operation not permitted when stream is capturing")

        def __exit__(self, *exc):
            pass

    runs = []
    with pretended():
        captured = Captured(lambda: runs.append(1), torch.device(PRETENDED), list)
        monkeypatch.setattr(captured, "_on_a_side_stream", captured.body)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
        monkeypatch.setattr(torch.cuda, "graph", Refuses)
        with pytest.warns(UserWarning, match="not captured.*not permitted"):
            for _ in range(6):
                captured()
    assert len(runs) == 6 and "not permitted" in captured.refused


def follows(fn):
    """A program in the way of `programs.placed`: what its lines make lies where its data lie."""

    def run(x):
        with torch.device(x.device):
            return fn(x)

    return run


def test_a_program_that_names_no_device_keeps_the_rules():
    net, enc = nn.Linear(L, D), nn.Linear(D, 2 * L)

    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(L), 1.0).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=net(z)).to_event(1), obs=x)

    def guide(x):
        pyro.module("enc", enc)
        scale = pyro.param("scale", torch.ones(L), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            loc, raw = enc(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale * raw.exp()).to_event(1))

    with pretended():
        step = step_of(follows(model), follows(guide), bits(), Trace_ELBO())
        with CudaRules():
            step()
