"""Gradients by numbers that belong to each datum, as one compiled graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pyro
import torch
from torch import Tensor

from ..handlers.substitute import Substitute
from ..inspection import Program
from ..modes import module_mode
from ..parameters import by_leaf, capture_parameters, store_of
from ..seeds import seeded
from .codegen import compile_module
from .inputs import signature
from .partition import partition, placeholders
from .tracing import UntraceableError, trace

# (leaves, tensors that belong to the chunk, the program's arguments for it) -> a scalar
ChunkLoss = Callable[[Sequence[Tensor], Sequence[Tensor], tuple[Any, ...]], Tensor]


class CompiledGradients:
    """Gradients of `loss(leaves, own, arguments)` by leaves, for chunks of one shape.

    The program's parameters stay as they are: what neither leaves nor noise touch (an encoder) runs
    once a chunk. Noise is drawn in the order of an eager run, so the numbers are the same.

    Args:
        program: whose parameters and buffers the loss uses.
        indices: data of the shape to compile for.
        leaves, own: tensors of that shape.
        loss: a function of these and of the program's arguments; the program must be in eval mode.

    Raises:
        UntraceableError: why it cannot be one graph.
    """

    def __init__(
        self,
        program: Program,
        indices: Tensor,
        leaves: Sequence[Tensor],
        own: Sequence[Tensor],
        loss: ChunkLoss,
    ) -> None:
        if not program.takes_slices:
            raise UntraceableError("it takes its data whole, or its plate stands for more data than it takes")
        self.program = program
        given = program.arguments.slice(indices)
        store = store_of(program.model)
        with (
            store.active() if store is not None else nullcontext(),
            module_mode(program.model, program.guide, training=False) as modules,
            pyro.validation_enabled(False),  # its checks read values
        ):
            with seeded(0, "compile", device=indices.device), capture_parameters() as parameters:
                loss(leaves, own, given)
            names, self._parameters = by_leaf(parameters)
            self._tensors = [i for i, a in enumerate(given) if isinstance(a, Tensor)]
            self._key = signature((*given, *own, *leaves))
            n, m = len(leaves), len(own)

            def compute(changing: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
                arguments: list[Any] = list(given)
                for i, tensor in zip(self._tensors, inputs[m:], strict=True):
                    arguments[i] = tensor
                values = dict(zip(names, changing[n:], strict=True))
                with torch.enable_grad(), Substitute(values, unconstrained=True, modules=modules):
                    value = loss(changing[:n], inputs[:m], tuple(arguments))
                    return list(torch.autograd.grad(value, changing[:n], materialize_grads=True))

            inputs = [*own, *(given[i] for i in self._tensors)]
            self.graph = trace(compute, [*leaves, *self._parameters], inputs, modules)
        self._noise = [noise.buffer() for noise in self.graph.noise]
        self._names = placeholders(self.graph.module)
        fixed = len(self._parameters) + len(inputs) + len(self.graph.buffers)
        levels = [1] * n + [0] * fixed + [1] * len(self._noise)
        self._once, each = partition(self.graph.module, levels)
        self._each = each.inputs
        self._fixed = self._names[n : n + fixed]
        self._changing = [*self._names[:n], *self._names[n + fixed :]]
        with torch.no_grad():
            known = dict(zip(self._changing, [*(x.detach() for x in leaves), *self._noise], strict=True))
            known |= self._known(own, given)
            self._call = compile_module(each.module, [known[name] for name in each.inputs])

    def bind(
        self, indices: Tensor, leaves: Sequence[Tensor], own: Sequence[Tensor]
    ) -> Callable[[], list[Tensor]] | None:
        """Gradients by these leaves for the data at `indices`; None where shapes are others."""
        given = self.program.arguments.slice(indices)
        if signature((*given, *own, *leaves)) != self._key:
            return None
        with torch.no_grad():
            known = self._known(own, given)

        def gradients() -> list[Tensor]:
            for spec, buffer in zip(self.graph.noise, self._noise, strict=True):
                spec.draw(buffer)
            changing = [*(x.detach() for x in leaves), *self._noise]
            values = known | dict(zip(self._changing, changing, strict=True))
            with torch.no_grad():
                return list(self._call(*(values[name] for name in self._each)))

        return gradients

    def _known(self, own: Sequence[Tensor], given: tuple[Any, ...]) -> dict[str, Tensor]:
        tensors = [*self._parameters, *own, *(given[i] for i in self._tensors), *self.graph.buffers]
        known = dict(zip(self._fixed, tensors, strict=True))
        return known | self._once.run(known)
