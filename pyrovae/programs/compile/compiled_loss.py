"""Loss and gradients of a program as one compiled graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from ..handlers.substitute import Substitute
from ..watch.layouts import Layouts, layout, say
from .codegen import compile_module
from .inputs import HELD, Inputs, Lift, flat, holdable
from .python_numbers import PythonNumbers, refuse_classes
from .strides import is_dense, strided_like
from .tracing import Graph, UntraceableError, trace

# (arguments, keyword arguments, tensors that vary beside them) -> (what is differentiated, what is reported)
LossFunction = Callable[[tuple[Any, ...], dict[str, Any], Sequence[Tensor]], tuple[Tensor, Tensor]]


class CompiledLoss:
    """`loss(args, kwargs)` and its gradients for arguments of one shape, in one graph.

    Args:
        loss: a function of the program's arguments and of further tensors.
        parameters: name to unconstrained leaf, all that the program uses.
        args, kwargs: arguments; tensors among them are inputs of the graph, numbers too where the program
            takes tensors for them, all else is part of it.
        extra: further tensors (a KL weight) that change without recompilation.
        modules: the modules that the program runs.
        generate: code for the graph; else it runs as it was traced.
        programs: by name, what runs of a user's.
        hold: where the program's course depends on whole numbers in small tensors among the arguments
            (lengths), they are part of the graph, which serves these numbers alone.
        laws: draws may have a law that the program computes.

    Attributes:
        inputs: how arguments become the graph's inputs.
        graph: as it was traced.
        used: leaves that have a gradient.
        mentioned: trained leaves that the program asks for, whether they have a gradient or not.
        noise: to be filled before each run.

    Raises:
        UntraceableError: why it cannot be one graph.
    """

    def __init__(
        self,
        loss: LossFunction,
        parameters: Mapping[str, Tensor],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any] | None = None,
        extra: Sequence[Tensor] = (),
        modules: Sequence[nn.Module] = (),
        generate: bool = True,
        programs: Mapping[str, Any] | None = None,
        hold: bool = False,
        laws: bool = True,
    ) -> None:
        by_leaf: dict[int, tuple[str, Tensor]] = {}
        for name, leaf in parameters.items():
            by_leaf.setdefault(id(leaf), (name, leaf))
        self.leaves = [leaf for _, leaf in by_leaf.values() if leaf.requires_grad]
        self._names = [name for name, leaf in by_leaf.values() if leaf.requires_grad]
        self._loss, self._given, self._extra = loss, (args, dict(kwargs or {})), list(extra)
        self._modules, self._programs, self._laws = modules, programs, laws
        self._aliases = [p.detach() for p in self.leaves]
        self._places = list(map(Tensor.data_ptr, self.leaves))
        device = next((p.device for p in self.leaves), None)
        self.graph, self.used, self.mentioned = self._first_that_traces(device, hold)
        self.key = self.inputs.key
        self._layouts = Layouts([*self.leaves, *self.graph.buffers])
        self.noise = [n.buffer() for n in self.graph.noise]
        self._call: Callable[..., Any] = self.graph.module
        self._example = [*self._aliases, *self._tensors(), *extra, *self.graph.buffers, *self.noise]
        self._unseen = generate
        self._copied: list[int] = []
        if generate:
            self._call = compile_module(self.graph.module, self._example)

    def _first_that_traces(
        self, device: torch.device | None, hold: bool
    ) -> tuple[Graph, list[Tensor], list[Tensor]]:
        args, kwargs = self._given
        values = (*args, *kwargs.values())
        tries: list[tuple[Lift, bool]] = [(lift, False) for lift in _lifts(values)]
        if hold and any(map(holdable, flat(values))):
            tries += [(lift, True) for lift, _ in tries]
        reasons: dict[bool, UntraceableError] = {}
        for lift, held in tries:
            self.inputs = Inputs(args, kwargs, lift, device, held)
            try:
                return self.trace()
            except UntraceableError as error:
                reasons.setdefault(held, error)
        # What is in the way where most is known is the program's own.
        raise reasons[max(reasons)]

    def _tensors(self) -> list[Tensor]:
        tensors = self.inputs.tensors(*self._given)
        if any(t.requires_grad or type(t) not in (Tensor, nn.Parameter) for t in tensors):
            raise UntraceableError("an argument is a tensor with a gradient, or of a class of its own")
        return tensors

    def trace(self) -> tuple[Graph, list[Tensor], list[Tensor]]:
        """The graph of the program as it is now, the leaves with a gradient, and those that it asks for."""
        used: list[int] = []
        mentioned: list[int] = []
        given, inputs = self._tensors(), len(self._tensors())
        lifted = self.inputs.lifted(*self._given)

        def compute(leaves: list[Tensor], flat: list[Tensor]) -> list[Tensor]:
            args, kwargs = self.inputs.filled(*self._given, flat[:inputs])
            values = dict(zip(self._names, leaves, strict=True))
            substitute = Substitute(values, unconstrained=True, modules=self._modules)
            with PythonNumbers(flat[i] for i in lifted), substitute, pyro.validation_enabled(False):
                surrogate, value = self._loss(args, kwargs, flat[inputs:])
            if not surrogate.requires_grad:
                raise UntraceableError("its loss depends on no trained parameter")
            grads = [
                g if g is None else strided_like(g, p)
                for g, p in zip(
                    torch.autograd.grad(surrogate, leaves, allow_unused=True), leaves, strict=True
                )
            ]
            used[:] = [i for i, g in enumerate(grads) if g is not None]
            asked = substitute.used
            mentioned[:] = [i for i, n in enumerate(self._names) if n in asked or grads[i] is not None]
            return [value.detach(), *(g for g in grads if g is not None)]

        literals = HELD if self.inputs.hold else 1
        graph = trace(
            compute, self.leaves, [*given, *self._extra], self._modules, self._programs, literals, self._laws
        )
        if lifted:
            refuse_classes(graph.ran)
        return graph, [self.leaves[i] for i in used], [self.leaves[i] for i in mentioned]

    def __call__(self, tensors: Sequence[Tensor], extra: Sequence[Tensor] = ()) -> Tensor:
        """Fresh noise, then loss (returned) and gradients (into `.grad`)."""
        self.draw(tensors, extra)
        value, grads = self.evaluate(tensors, extra)
        for leaf, grad in zip(self.used, grads, strict=True):
            leaf.grad = grad
        return value

    def draw(self, tensors: Sequence[Tensor], extra: Sequence[Tensor] = ()) -> None:
        """Fresh noise, of torch's generators as they stand."""
        before: list[Tensor] = []
        if any(spec.law is not None for spec in self.graph.noise):
            before = [*self._leaves_now(), *tensors, *extra, *self.graph.buffers]
        with torch.no_grad():
            for spec, buffer in zip(self.graph.noise, self.noise, strict=True):
                spec.fill(buffer, before)
                before.append(buffer)

    def _leaves_now(self) -> list[Tensor]:
        """The leaves without their gradient; made anew where `.data` was replaced, by .to() for example."""
        places = list(map(Tensor.data_ptr, self.leaves))
        if places != self._places:
            self._aliases, self._places = [p.detach() for p in self.leaves], places
        return self._aliases

    def relaid(self) -> str | None:
        """Change of a tensor from outside since then: `.data` was replaced, or resized; None without one."""
        if self._layouts.hold():
            return None
        pairs = zip(self._layouts.tensors, self._layouts.kept, strict=True)
        said = ((say(kept), say(layout(tensor))) for tensor, kept in pairs)
        # Whether it is trained is the watch's to say.
        return next((f"a tensor was {before} and is {now}" for before, now in said if before != now), None)

    def evaluate(
        self, tensors: Sequence[Tensor], extra: Sequence[Tensor] = ()
    ) -> tuple[Tensor, list[Tensor]]:
        """Loss and gradients of `used`, with their strides, under the noise that stands in `noise`."""
        given = [*self._leaves_now(), *tensors, *extra, *self.graph.buffers, *self.noise]
        with torch.no_grad():
            value, *grads = self._call(*given)
            if self._unseen:
                value, *grads = self._look(given, value, grads)
            for i in self._copied:
                grads[i] = strided_like(grads[i], self.used[i])
        return value, grads

    def _look(self, flat: Sequence[Tensor], value: Tensor, grads: list[Tensor]) -> list[Tensor]:
        """Whether generated code gives gradients the strides that were traced; it pads products on some devices."""
        self._unseen = False
        if self._others(grads):
            self._call = compile_module(self.graph.module, self._example, padding=False)
            value, *grads = self._call(*flat)
            self._copied = self._others(grads)
        self._example = []
        return [value, *grads]

    def _others(self, grads: Sequence[Tensor]) -> list[int]:
        pairs = zip(grads, self.used, strict=True)
        return [i for i, (g, p) in enumerate(pairs) if g.stride() != p.stride() and is_dense(p)]

    def moved(self, tensors: Sequence[Tensor], extra: Sequence[Tensor] = ()) -> tuple[Tensor, list[Tensor]]:
        """Loss and gradients as `evaluate` gives them, with every number moved by half a unit in its last place."""
        generator = torch.Generator().manual_seed(0)

        def move(t: Tensor) -> Tensor:
            if not t.is_floating_point():
                return t
            bits = torch.randint(2, t.shape, generator=generator, device="cpu").to(t)
            return t * (1 - torch.finfo(t.dtype).eps * bits)

        with torch.no_grad():
            flat = (*self._aliases, *tensors, *extra, *self.graph.buffers, *self.noise)
            value, *grads = self._call(*map(move, flat))
        return value, grads


def _lifts(values: Sequence[Any]) -> list[Lift]:
    """Ways to try: numbers as tensors, as far as there are any."""
    kinds = {type(v) for v in flat(values)}
    whole = any(issubclass(kind, int | np.integer) and kind is not bool for kind in kinds)
    real = any(issubclass(kind, float | np.floating) for kind in kinds)
    tries: list[Lift] = ["numbers"] if whole else []
    return [*tries, "floats", "nothing"] if real else [*tries, "nothing"]
