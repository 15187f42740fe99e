"""The fused update against torch's own, for parameters, gradients and state laid out in every way."""

import functools
import shutil

import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn

import pyrovae as pv
from pyrovae.programs.compile.strides import is_dense, strided_like
from pyrovae.svi.fused import FusedStep

from .pairs import Pair
from .test_cuda_rules import Bilinear, bits

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None,
    reason="no C++ compiler: nothing compiles here",
)
ADAM = functools.partial(torch.optim.Adam, lr=1e-2)
LAYOUTS = {
    "rows": torch.zeros(4, 3),
    "columns": torch.zeros(3, 4).T,
    "channels last": torch.zeros(2, 4, 3, 3).contiguous(memory_format=torch.channels_last),
    "one row, odd strides": torch.zeros(6).as_strided((1, 6), (1, 1)),
    "a number": torch.zeros(()),
}


def trained(pair, compile, number=6, before_step=None):
    """Losses, and parameters by name, of some steps under the same noise."""
    store = pv.ParameterStore()
    svi = pv.SVI(
        store.bind(pair.model),
        store.bind(pair.guide),
        ADAM,
        Trace_ELBO(),
        compile=compile,
        before_step=before_step,
    )
    losses = []
    for i in range(number):
        torch.manual_seed(i)
        losses.append(svi.step(bits()))
    assert svi.refused is None
    return torch.tensor(losses), store.state_dict()


@pytest.mark.parametrize("generated", [pytest.param(True, marks=needs_compiler), False])
def test_programs_whose_gradients_come_transposed_train_as_eager_ones(request, generated):
    """The kernel read them in memory's order: Adam moved each weight by another one's gradient, in silence."""
    if not generated:
        request.getfixturevalue("interpreted")
    (losses, ours), (expected, eager) = trained(Bilinear(), True), trained(Bilinear(), False)
    torch.testing.assert_close(losses, expected)
    for name, value in eager.items():
        torch.testing.assert_close(ours[name], value)


def test_generated_code_that_gives_other_strides_is_made_again_or_copied(monkeypatch):
    """Padded products did, on a GPU."""
    asked = []

    def transposing(module, example, padding=True):
        asked.append(padding)
        return lambda *args: [t.T.contiguous().T if t.dim() == 2 else t for t in module(*args)]

    monkeypatch.setattr("pyrovae.programs.compile.compiled_loss.compile_module", transposing)
    (losses, ours), (expected, eager) = trained(Pair(), True), trained(Pair(), False)
    assert asked == [True, False]
    torch.testing.assert_close(losses, expected)
    for name, value in eager.items():
        torch.testing.assert_close(ours[name], value)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "a number"])
def test_gradients_take_the_strides_of_their_parameters(name):
    like = LAYOUTS[name]
    value = torch.randn(like.shape)
    for given in (
        value,
        value.permute(*reversed(range(value.dim()))).contiguous().permute(*reversed(range(value.dim()))),
    ):
        out = strided_like(given, like)
        assert out.stride() == like.stride() and torch.equal(out, value)
    assert strided_like(like, like) is like


def test_a_tensor_with_gaps_is_left_alone():
    for loose in (torch.zeros(4, 4)[:, ::2], torch.zeros(3, 1).expand(3, 2)):
        value = torch.ones(loose.shape)
        assert not is_dense(loose) and strided_like(value, loose) is value


def updates(parameters, make, number=3, change=lambda optimizer: None):
    """Parameters after steps that the fused update and torch's own take in turn, and after torch's alone."""
    found = []
    for fused in (True, False):
        own = [nn.Parameter(p.detach().clone()) for p in parameters]
        assert [p.stride() for p in own] == [p.stride() for p in parameters]
        optimizer = make(own)
        step = FusedStep(optimizer)
        for i in range(number):
            for j, p in enumerate(own):
                p.grad = torch.randn(
                    p.shape, generator=torch.Generator().manual_seed(9 * i + j), dtype=p.dtype
                )
                p.grad = strided_like(p.grad, p)
            step() if fused and i != 1 else optimizer.step()
            change(optimizer)
        found.append((own, step.fuses))
    return found


def torch_eager_then_loaded(optimizer):
    """A file keeps no strides."""
    state = optimizer.state_dict()
    for own in state["state"].values():
        own.update({k: v.contiguous() for k, v in own.items()})
    optimizer.load_state_dict(state)


@pytest.mark.parametrize("change", [lambda optimizer: None, torch_eager_then_loaded])
def test_the_update_is_torchs_for_every_layout(change):
    parameters = [torch.randn(p.shape).add(p) if p.is_contiguous() else p.clone() for p in LAYOUTS.values()]
    (ours, fuses), (expected, _) = updates(
        parameters, functools.partial(torch.optim.AdamW, lr=0.1), change=change
    )
    assert fuses
    for p, q in zip(ours, expected, strict=True):
        torch.testing.assert_close(p, q)


def test_the_update_is_torchs_for_two_dtypes_and_for_steps_counted_in_doubles():
    parameters = [torch.randn(3, 2), torch.randn(4).double()]

    def doubles(optimizer):
        for state in optimizer.state.values():
            state["step"] = state["step"].detach().double().clone()

    (ours, fuses), (expected, _) = updates(parameters, ADAM, change=doubles)
    assert fuses
    for p, q in zip(ours, expected, strict=True):
        torch.testing.assert_close(p, q)


def test_a_parameter_with_gaps_is_torchs_to_update():
    p = nn.Parameter(torch.ones(4, 4)[:, ::2])
    assert not FusedStep(torch.optim.Adam([p])).fuses


def test_what_the_kernel_would_misread_is_refused_by_name(interpreted):
    def transposes(parameters):
        for p in parameters:
            if p.dim() == 2:
                p.grad = p.grad.T.contiguous().T

    with pytest.raises(ValueError, match=r"gradient of 'enc\.weight' with its parameter's strides \(6, 1\)"):
        trained(Pair(), True, before_step=transposes)
    p = nn.Parameter(torch.zeros(3, 2))
    optimizer = torch.optim.Adam([p])
    optimizer.state[p] = {"step": 0, "exp_avg": torch.zeros(2, 3), "exp_avg_sq": torch.zeros(3, 2)}
    p.grad = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"exp_avg of a parameter of shape \(3, 2\)"):
        FusedStep(optimizer)()


def test_what_was_checked_is_checked_again_where_the_state_is_another():
    p = nn.Parameter(torch.zeros(3, 2))
    optimizer = torch.optim.Adam([p])
    step = FusedStep(optimizer)
    p.grad = torch.ones(3, 2)
    step()
    optimizer.state[p]["exp_avg"] = torch.zeros(3, 2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"exp_avg .* float64"):
        step()


def clamps(optimizer):
    """After each step the weights are put back into a box, by a hook; or by a step of a user's own."""

    def clamp(optimizer, *rest):
        with torch.no_grad():
            for p in optimizer.param_groups[0]["params"]:
                p.clamp_(-0.1, 0.1)

    return clamp


def by_hook(optimizer):
    optimizer.register_step_post_hook(clamps(optimizer))


def by_own_step(optimizer):
    step, clamp = optimizer.step, clamps(optimizer)

    def clamped_step(*args):
        step(*args)
        clamp(optimizer)

    optimizer.step = clamped_step


@pytest.mark.parametrize("change", [by_hook, by_own_step])
def test_what_a_user_adds_to_the_optimizers_step_is_done(change):
    p = nn.Parameter(torch.full((3, 2), 0.1))
    optimizer = torch.optim.Adam([p], lr=1.0)
    step = FusedStep(optimizer)
    p.grad = torch.ones(3, 2)
    step()
    change(optimizer)
    assert not step.fuses
    step()
    assert bool((p == -0.1).all())


def test_a_scheduler_of_torch_takes_no_fused_step_away():
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(3))])
    torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    torch.optim.lr_scheduler.StepLR(optimizer, 2)
    assert FusedStep(optimizer).fuses
    by_own_step(optimizer)
    assert not FusedStep(optimizer).fuses


def test_another_optimizer_in_the_same_svi():
    pair, store = Pair(), pv.ParameterStore()
    svi = pv.SVI(store.bind(pair.model), store.bind(pair.guide), ADAM, Trace_ELBO(), compile=False)
    svi.step(bits())
    before = store.state_dict()
    svi.optim = functools.partial(torch.optim.SGD, lr=0.0)
    svi.step(bits())
    torch.testing.assert_close(store.state_dict(), before)


def test_a_captured_step_is_made_anew_where_its_optimizer_changes(interpreted, monkeypatch):
    monkeypatch.setattr("pyrovae.svi.captured_step.captures", lambda device: True)
    pair, store = Pair(), pv.ParameterStore()
    svi = pv.SVI(store.bind(pair.model), store.bind(pair.guide), ADAM, Trace_ELBO(), compile=True)
    for _ in range(3):
        svi.step(bits())
    captured = svi._captured.graph
    svi.optimizer.param_groups[0]["lr"] = 0.5  # an input of the step
    svi.step(bits())
    assert svi._captured.graph is captured
    svi.optimizer.param_groups[0]["weight_decay"] = 0.5
    svi.step(bits())
    assert svi._captured.graph is not captured
    svi.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    svi.step(bits())
    assert len(svi._captured.static.rates) == 2 and svi.compiled_steps == 5


def test_a_torch_without_guards_over_many_tensors_gives_the_same_steps(interpreted, monkeypatch):
    """They are torch's own, under a name that may go; a change of layout is seen without them, too."""
    from pyrovae.programs.watch import layouts

    losses, weights = trained(Pair(), True)
    monkeypatch.setattr(layouts, "TensorGuards", None)
    others, those = trained(Pair(), True)
    torch.testing.assert_close(others, losses)
    for name, value in weights.items():
        torch.testing.assert_close(those[name], value)
    t = torch.zeros(2, 3)
    same = layouts.Layouts([t])
    assert same.hold()
    t.data = t.T
    assert not same.hold()
