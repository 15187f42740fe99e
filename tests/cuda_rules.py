"""What only a CUDA kernel or a CUDA graph enforces, as checks that run on a CPU.

Work on tensors of the device "meta", where steps are captured in the body of `pretended`, takes every decision that it
takes on CUDA and computes nothing; `CudaRules` looks at each of its operations. `Replays` looks at real work on a CPU
and finds what a replay of its first run would not do as a later run does.
"""

from __future__ import annotations

from contextlib import contextmanager
from unittest import mock

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pyrovae import devices

PRETENDED = "meta"
aten = torch.ops.aten
FUSED = {aten._fused_adam_, aten._fused_adamw_}
# They wait for the device, or for a check on the host.
READ_BACK = {aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten._linalg_check_errors, aten.item}


class Broken(AssertionError):
    """A rule of CUDA that an operation breaks."""


@contextmanager
def pretended():
    """In the body, steps are captured on `PRETENDED` and nowhere else, and fused there, too."""
    with (
        mock.patch.object(devices, "CAPTURES", {PRETENDED}),
        mock.patch.object(devices, "FUSES", {PRETENDED}),
    ):
        yield


class Mover:
    """Puts modules and parameter stores (in place) and tensors on the pretended device; shared ones stay shared."""

    def __init__(self):
        self._known = {}

    def module(self, module):
        for part in module.modules():
            for table in (part._parameters, part._buffers):
                for name, tensor in table.items():
                    if tensor is not None:
                        table[name] = self.tensor(tensor)
        return module

    def store(self, store):
        for name, tensor in list(store._params.items()):
            store._params[name] = self.tensor(tensor)
            store._names.pop(tensor, None)
            store._names[store._params[name]] = name
        return store

    def tensor(self, tensor):
        if tensor.device.type == PRETENDED:
            return tensor
        if id(tensor) not in self._known:
            there = tensor.detach().to(PRETENDED)
            assert there.stride() == tensor.stride()
            if isinstance(tensor, nn.Parameter):
                there = nn.Parameter(there, tensor.requires_grad)
            elif tensor.is_leaf and tensor.requires_grad:
                there.requires_grad_()
            self._known[id(tensor)] = there, tensor  # kept alive: its id is no other's
        return self._known[id(tensor)][0]


class CudaRules(TorchDispatchMode):
    """Raises `Broken` at the first operation that a captured step on CUDA must not hold.

    Each tensor on the device, also 0-dim ones; no number read back and no shape that depends on values; noise of the
    device's own generator; and what the fused update takes for granted of its tensors. A step of the warm-up is not
    captured: there the last alone holds.
    """

    def __init__(self, warm_up=False):
        super().__init__()
        self.warm_up = warm_up

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if packet in FUSED:
            return check_fused(func, args, kwargs)
        if self.warm_up:
            return func(*args, **kwargs)
        if packet in READ_BACK or torch.Tag.data_dependent_output in func.tags:
            raise Broken(f"{func} reads a number back")
        if torch.Tag.dynamic_output_shape in func.tags:
            raise Broken(f"{func} makes a shape that depends on values")
        if torch.Tag.nondeterministic_seeded in func.tags and kwargs.get("generator") is not None:
            raise Broken(f"{func} draws of a generator that is not registered with the graph")
        self.on_the_device(func, "takes", (args, kwargs))
        out = func(*args, **kwargs)
        self.on_the_device(func, "makes", out)
        return out

    def on_the_device(self, func, verb, value):
        for leaf in tree_leaves(value):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != PRETENDED:
                raise Broken(f"{func} {verb} a tensor {tuple(leaf.shape)} on {leaf.device}")
            if isinstance(leaf, torch.device) and leaf.type != PRETENDED:
                raise Broken(f"{func} is asked for a tensor on {leaf}")


def check_fused(func, args, kwargs):
    """`_fused_adam_` on CUDA: one device, dtype and layout; steps and rates read by the kernel as floats."""
    names = [a.name for a in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | kwargs
    params = given["self"]
    for name in ("grads", "exp_avgs", "exp_avg_sqs"):
        for p, other in zip(params, given[name], strict=True):
            same = (p.shape, p.stride(), p.dtype, p.device) == (
                other.shape,
                other.stride(),
                other.dtype,
                other.device,
            )
            if not same:
                raise Broken(f"{name}: {other.stride()} {other.dtype} beside {p.stride()} {p.dtype}")
    scalars = [("state_steps", s) for s in given["state_steps"]] + [("found_inf", given.get("found_inf"))]
    if isinstance(given["lr"], torch.Tensor):
        scalars.append(("lr", given["lr"]))
    for name, value in scalars:
        if value is not None and (
            value.dtype != torch.float32 or value.dim() or value.device != params[0].device
        ):
            raise Broken(
                f"{name} is {value.dtype} {tuple(value.shape)} on {value.device}, read as a float of the device"
            )


class Replays(TorchDispatchMode):
    """Records each run of a body; `check` says what a replay of an earlier run would do otherwise.

    A CUDA graph replays kernels with the addresses and numbers of its capture. So a later run must be the same
    operations, with the same numbers, on the same tensors from outside of it; what a run makes itself is its own.
    """

    def __init__(self):
        super().__init__()
        self.runs = []

    def run(self, body):
        self.runs.append([])
        self.made = {}
        with self:
            body()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        about = [self.about(leaf) for leaf in tree_leaves((args, kwargs))]
        self.runs[-1].append((str(func), about))
        out = func(*args, **kwargs)
        given = {
            leaf.untyped_storage()._cdata
            for leaf in tree_leaves((args, kwargs))
            if isinstance(leaf, torch.Tensor)
        }
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in given:
                self.made.setdefault(
                    leaf.untyped_storage()._cdata, (len(self.made), leaf)
                )  # kept: no place twice
        return out

    def about(self, leaf):
        if not isinstance(leaf, torch.Tensor):
            return repr(leaf)
        layout = tuple(leaf.shape), leaf.stride(), leaf.storage_offset(), leaf.dtype
        own = self.made.get(leaf.untyped_storage()._cdata)
        return ("made", own[0], *layout) if own is not None else ("outside", leaf.data_ptr(), *layout)

    def check(self, first=0):
        """Compares all runs with the one of this number.

        Raises:
            Broken: at the first difference.
        """
        for run in self.runs[first + 1 :]:
            for (name, before), (now, after) in zip(self.runs[first], run, strict=False):
                if name != now:
                    raise Broken(f"a replay would run {name} where a later run has {now}")
                for a, b in zip(before, after, strict=True):
                    if a != b:
                        raise Broken(f"{name} of a replay would take {a}, a later run has {b}")
            if len(run) != len(self.runs[first]):
                raise Broken(
                    f"a replay would run {len(self.runs[first])} operations, a later run has {len(run)}"
                )
