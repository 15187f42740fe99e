"""The generated update against torch's Adam and AdamW, and by the rules of CUDA."""

import functools
import shutil

import pytest
import torch
from torch import nn

from pyrovae.svi.fused import FusedStep
from pyrovae.svi.generated_update import adam, generated_adam

from .cuda_rules import PRETENDED, CudaRules, pretended

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None,
    reason="no C++ compiler: nothing compiles here",
)
LAYOUTS = (
    torch.zeros(4, 3),
    torch.zeros(3, 4).T,
    torch.zeros(2, 4, 3, 3).contiguous(memory_format=torch.channels_last),
    torch.zeros(()),
)
SETTINGS = {
    "Adam": (torch.optim.Adam, {}),
    "decay": (torch.optim.Adam, {"weight_decay": 0.1}),
    "AdamW": (torch.optim.AdamW, {"weight_decay": 0.1, "betas": (0.5, 0.99), "eps": 1e-3}),
    "no momentum": (torch.optim.Adam, {"betas": (0.0, 0.999)}),
}
RATE = 0.03


def like(dtype, generator):
    return [
        torch.empty_like(t, dtype=dtype).copy_(torch.randn(t.shape, generator=generator)) for t in LAYOUTS
    ]


def against_torch(step_of, optimizer, options, dtype):
    """Both go through the same gradients; a loss that is no number in between changes nothing. Largest difference."""
    generator = torch.Generator().manual_seed(0)
    values = like(dtype, generator)
    reference = [nn.Parameter(v.clone()) for v in values]
    torchs = optimizer(reference, lr=RATE, **options)
    group = torchs.param_groups[0]
    settings = (*group["betas"], group["weight_decay"], group["eps"])
    moments = [[torch.zeros_like(v) for v in values] for _ in range(2)]
    counts, rate, loss = torch.zeros(len(values)), torch.tensor(RATE), torch.tensor(1.0)
    flat = [loss, rate, counts, *values, *map(torch.empty_like, values), *moments[0], *moments[1]]
    step = step_of(len(values), flat, settings, optimizer is torch.optim.AdamW)
    for i in range(30):
        gradients = [g * 10.0 ** (i % 4 - 2) for g in like(dtype, generator)]
        for p, g in zip(reference, gradients, strict=True):
            p.grad = g.clone()
        torchs.step()
        with torch.no_grad():
            step(loss, rate, counts, *values, *gradients, *moments[0], *moments[1])
            before = [t.clone() for t in (*values, *moments[0], *moments[1], counts)]
            for bad in (torch.nan, torch.inf, -torch.inf):
                step(torch.tensor(bad), rate, counts, *values, *gradients, *moments[0], *moments[1])
            after = (*values, *moments[0], *moments[1], counts)
        assert all(map(torch.equal, before, after))
    assert torch.equal(counts, torch.full((len(values),), 30.0))
    return max(float((a - b.detach()).abs().max()) for a, b in zip(values, reference, strict=True))


def as_written(number, flat, settings, decoupled):
    def step(loss, rate, counts, *tensors):
        parts = [tensors[i : i + number] for i in range(0, 4 * number, number)]
        adam(loss, rate, counts, *parts, settings, decoupled)

    return step


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.float64, 1e-6)])
def test_it_is_torchs_update(name, dtype, within):
    """The rate is a float32, as on a GPU: 1e-8 of it, over 30 steps of .03."""
    optimizer, options = SETTINGS[name]
    assert against_torch(as_written, optimizer, options, dtype) < within


@needs_compiler
@pytest.mark.parametrize("name", ["decay", "AdamW"])
def test_generated_code_is_the_function(name):
    optimizer, options = SETTINGS[name]
    assert against_torch(generated_adam, optimizer, options, torch.float32) < 1e-5


def test_the_first_step_keeps_its_digits():
    """1 - .999^1 in float32 has an error of 1e-5: the first step of Adam is lr, whatever the gradient."""
    p, g = torch.zeros(3), torch.tensor([1e-3, 1.0, -1e3])
    m, v, counts = torch.zeros(3), torch.zeros(3), torch.zeros(1)
    settings = (0.9, 0.999, 0.0, 0.0)
    adam(torch.tensor(0.0), torch.tensor(1.0), counts, [p], [g], [m], [v], settings, False)
    torch.testing.assert_close(p, -g.sign(), rtol=3e-7, atol=0)


def test_it_keeps_the_rules_of_cuda():
    with pretended(), torch.no_grad():
        make = functools.partial(torch.zeros, device=PRETENDED)
        parts = [[make(4, 3), make(2)] for _ in range(4)]
        with CudaRules():
            adam(make(()), make(()), make(2), *parts, (0.9, 0.999, 0.1, 1e-8), True)


@needs_compiler
def test_a_step_where_it_is_generated_is_the_fused_one(monkeypatch):
    """On a device that captures and compiles: two groups, of which one changes its settings, and a late gradient."""
    monkeypatch.setattr("pyrovae.devices.CAPTURES", {"cpu"})
    ours = [[nn.Parameter(torch.ones(4, 3)), nn.Parameter(torch.ones(5))] for _ in range(2)]
    groups = [[{"params": ps[:1], "lr": 0.1}, {"params": ps[1:], "lr": 0.2}] for ps in ours]
    generated, plain = (FusedStep(torch.optim.Adam(g)) for g in groups)
    rates = [torch.tensor(0.1), torch.tensor(0.2)]
    for i in range(6):
        for ps in ours:
            ps[0].grad = torch.full((4, 3), float(i + 1))
            ps[1].grad = torch.linspace(-1, 1, 5) * i if i > 1 else None
        if i == 4:
            for step in (generated, plain):
                step.optimizer.param_groups[1]["betas"] = (0.3, 0.9)
        generated(rates, torch.tensor(3.0 if i != 3 else torch.nan))
        if i != 3:
            plain()
    assert generated._bound[0, torch.float32].code[1] is not None
    for a, b in zip(*ours, strict=True):
        torch.testing.assert_close(a, b)
    states = [step.optimizer.state[p] for step, ps in zip((generated, plain), ours, strict=True) for p in ps]
    assert [float(s["step"]) for s in states] == [5.0, 3.0, 5.0, 3.0]
