"""Loss and gradients of a program as one compiled graph."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import pyro
import torch
from torch import Tensor, fx, nn

from .compile_cache import ensure_compile_cache
from .substitute import Substitute
from .tracing import Graph, UntraceableError, trace

# (program arguments, tensors that vary beside them) -> (what is differentiated, what is reported)
LossFunction = Callable[[tuple[Any, ...], Sequence[Tensor]], tuple[Tensor, Tensor]]


class CompiledLoss:
    """`loss(args)` and its gradients for arguments of one shape, in one graph.

    Args:
        loss: a function of the program's arguments and of further tensors.
        parameters: name to unconstrained leaf, all that the program uses.
        args: arguments; tensors among them are inputs of the graph, all else is part of it.
        extra: further tensors (a KL weight) that change without recompilation.
        modules: the modules that the program runs.
        generate: code for the graph; else it runs as it was traced.

    Raises:
        UntraceableError: why it cannot be one graph.
    """

    def __init__(
        self,
        loss: LossFunction,
        parameters: Mapping[str, Tensor],
        args: tuple[Any, ...],
        extra: Sequence[Tensor] = (),
        modules: Sequence[nn.Module] = (),
        generate: bool = True,
    ) -> None:
        by_leaf: dict[int, tuple[str, Tensor]] = {}
        for name, leaf in parameters.items():
            by_leaf.setdefault(id(leaf), (name, leaf))
        self.leaves = [leaf for _, leaf in by_leaf.values() if leaf.requires_grad]
        names = [name for name, leaf in by_leaf.values() if leaf.requires_grad]
        self.key = signature(args)
        self._inputs = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        used: list[int] = []

        def compute(leaves: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
            given = list(args)
            for i, tensor in zip(self._inputs, inputs, strict=False):
                given[i] = tensor
            values = dict(zip(names, leaves, strict=True))
            with (
                Substitute(values, unconstrained=True, modules=modules),
                pyro.validation_enabled(False),
            ):
                surrogate, value = loss(tuple(given), inputs[len(self._inputs) :])
            grads = torch.autograd.grad(surrogate, leaves, allow_unused=True)
            used[:] = [i for i, g in enumerate(grads) if g is not None]
            return [value.detach(), *(g for g in grads if g is not None)]

        inputs = [*(args[i] for i in self._inputs), *extra]
        self.graph = trace(compute, self.leaves, inputs, modules)
        self.used = [self.leaves[i] for i in used]
        self.noise = [n.buffer() for n in self.graph.noise]
        self._call: Callable[..., Any] = self.graph.module
        if generate:
            self._call = compile_graph(self.graph, [p.detach() for p in self.leaves], inputs, self.noise)
        self._aliases = [p.detach() for p in self.leaves]

    def __call__(self, args: tuple[Any, ...], extra: Sequence[Tensor] = ()) -> Tensor:
        """Fresh noise, then loss (returned) and gradients (into `.grad`)."""
        for spec, buffer in zip(self.graph.noise, self.noise, strict=True):
            spec.draw(buffer)
        value, grads = self.evaluate(args, extra)
        for leaf, grad in zip(self.used, grads, strict=True):
            leaf.grad = grad
        return value

    def evaluate(self, args: tuple[Any, ...], extra: Sequence[Tensor] = ()) -> tuple[Tensor, list[Tensor]]:
        """Loss and gradients of `used` under the noise that stands in `noise`."""
        for i, (leaf, alias) in enumerate(zip(self.leaves, self._aliases, strict=True)):
            if leaf.data_ptr() != alias.data_ptr():  # .data was replaced, by .to() for example
                self._aliases[i] = leaf.detach()
        inputs = [args[i] for i in self._inputs]
        with torch.no_grad():
            value, *grads = self._call(*self._aliases, *inputs, *extra, *self.graph.buffers, *self.noise)
        return value, grads


def compile_graph(
    graph: Graph, parameters: Sequence[Tensor], inputs: Sequence[Tensor], noise: Sequence[Tensor]
) -> Callable[..., Any]:
    """Generates code for a graph.

    Raises:
        UntraceableError: where no compiler works on this machine.
    """
    return compile_module(graph.module, [*parameters, *inputs, *graph.buffers, *noise])


def compile_module(module: fx.GraphModule, example: Sequence[Tensor]) -> Callable[..., Any]:
    """Generates code for a flat graph, for tensors as in `example`.

    Raises:
        UntraceableError: where no compiler works on this machine.
    """
    ensure_compile_cache()
    import torch._inductor as inductor
    import torch._inductor.config as settings

    # Channels last pays for convolutions alone: with their gradients it costs 7 % of a step.
    trains = any(n.target is torch.ops.aten.convolution_backward.default for n in module.graph.nodes)
    layouts = settings.patch(layout_optimization=False) if trains else nullcontext()
    try:
        # Ahead of time and without guards: shapes are checked by `signature`, once a step.
        with warnings.catch_warnings(), torch.no_grad(), layouts:
            warnings.simplefilter("ignore")
            return inductor.compile(module, list(example))
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise UntraceableError(f"no code could be generated ({type(error).__name__}: {text})") from error


def signature(args: Sequence[Any]) -> tuple[Any, ...]:
    """What a graph depends on: shapes, dtypes and devices of tensors, values of all else."""
    return tuple((tuple(a.shape), a.dtype, a.device) if isinstance(a, Tensor) else a for a in args)
