"""A program's densities and their gradients as one compiled graph."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from ..handlers.substitute import Substitute
from ..latents.densities import Densities
from ..latents.terms import Start, differentiate
from ..modes import module_mode
from ..parameters import by_leaf, capture_parameters, store_of
from ..seeds import seeded
from .codegen import compile_module
from .inputs import signature
from .partition import partition, placeholders
from .tracing import UntraceableError, trace


class CompiledDensities:
    """`Densities.evaluate`, for chunks of one shape; what u does not touch runs once a chunk.

    Raises:
        UntraceableError: why it cannot be one graph.
    """

    def __init__(self, densities: Densities, start: Start) -> None:
        program = densities.program
        if not program.takes_slices:
            raise UntraceableError("it takes its data whole, or its plate stands for more data than it takes")
        given = program.arguments.slice(densities.indices)
        with seeded(0, "compile", device=densities.indices.device):
            u = torch.nan_to_num(densities.initial(start))
        store = store_of(program.model)
        active = store.active() if store is not None else nullcontext()
        with active, module_mode(program.model, program.guide, training=False) as modules:
            with capture_parameters() as parameters:
                densities.evaluate(u, start)
            names, self._leaves = by_leaf(parameters)
            self._tensors = [i for i, a in enumerate(given) if isinstance(a, Tensor)]
            self.key = signature((*given, u))

            def compute(leaves: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
                arguments: list[Any] = list(given)
                for i, tensor in zip(self._tensors, inputs, strict=True):
                    arguments[i] = tensor
                values = dict(zip(names, leaves[1:], strict=True))
                with Substitute(values, unconstrained=True, modules=modules):
                    return list(
                        differentiate(
                            lambda v: densities.terms_given(v, tuple(arguments), start == "guide"),
                            leaves[0],
                            densities.temperature,
                        )
                    )

            inputs = [given[i] for i in self._tensors]
            with densities.program.quiet(grad=True):
                leaf = u.detach().requires_grad_()
                self.graph = trace(compute, [leaf, *self._leaves], inputs, modules)
        # A plate that subsamples draws indices that nobody uses.
        self._noise = [n.draw(n.buffer()) for n in self.graph.noise]
        flat = [u, *self._leaves, *inputs, *self.graph.buffers, *self._noise]
        self._names = placeholders(self.graph.module)
        self._once, each = partition(self.graph.module, [1] + [0] * (len(flat) - 1))
        self._each = each.inputs
        with torch.no_grad():
            known = dict(zip(self._names, flat, strict=True))
            known |= self._once.run(known)
            self._call = compile_module(each.module, [known[name] for name in each.inputs])

    def bind(self, densities: Densities) -> _Bound:
        """The function of u for these data, whose shapes must be those compiled for."""
        given = densities.program.arguments.slice(densities.indices)
        inputs = [given[i] for i in self._tensors]
        rest = [*self._leaves, *inputs, *self.graph.buffers, *self._noise]
        return _Bound(self, rest, given)


class _Bound:
    """A compiled density, for the data of one chunk."""

    def __init__(self, compiled: CompiledDensities, rest: list[Tensor], given: tuple[Any, ...]) -> None:
        self.compiled, self.given = compiled, given
        self.known = dict(zip(compiled._names[1:], rest, strict=True))
        with torch.no_grad():
            self.known |= compiled._once.run(self.known)

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        compiled = self.compiled
        if signature((*self.given, u)) != compiled.key:
            raise ValueError(f"expected chains and data of one shape, got {tuple(u.shape)}")
        known = self.known | {compiled._names[0]: u.contiguous()}
        with torch.no_grad():
            return tuple(compiled._call(*(known[name] for name in compiled._each)))
