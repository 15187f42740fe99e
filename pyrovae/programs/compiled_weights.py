"""Log-weights of a program as one compiled graph, for chunks of one shape."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from .compiling import compile_graph, signature
from .inspection import PARTICLES, Program
from .modules import module_mode
from .parameters import capture_parameters, store_of
from .seeds import seeded
from .sites import collect
from .substitute import Substitute
from .tracing import UntraceableError, trace


class CompiledWeights:
    """`ln w`, `[K, n]`, for K samples of n data; the numbers of `Program.run` given the same noise.

    Raises:
        UntraceableError: why it cannot be one graph.
    """

    def __init__(self, program: Program, indices: Tensor, num_samples: int) -> None:
        if program.arguments.calling != "sliced" or not program.vectorised:
            raise UntraceableError("it takes its data whole, or does not broadcast over samples")
        self.program, self.num_samples = program, num_samples
        given = program.arguments.slice(indices)
        with (
            seeded(0, "compile", device=given[0].device),
            torch.no_grad(),
            module_mode(program.model, program.guide, training=False) as modules,
            capture_parameters() as parameters,
        ):
            program.run(indices, 1)
        by_leaf = {id(leaf): (name, leaf) for name, leaf in reversed(list(parameters.items()))}
        names = [name for name, _ in by_leaf.values()]
        self._leaves = [leaf.detach() for _, leaf in by_leaf.values()]
        self._tensors = [i for i, a in enumerate(given) if isinstance(a, Tensor)]
        self.key = signature(given)

        def compute(leaves: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
            arguments: list[Any] = list(given)
            for i, tensor in zip(self._tensors, inputs, strict=True):
                arguments[i] = tensor
            values = dict(zip(names, leaves, strict=True))
            with Substitute(values, unconstrained=True, modules=modules):
                traces = program.traces(tuple(arguments), num_samples)
            sites = collect(*traces, plate=program.plate, particles=PARTICLES)
            return [sites.log_weights()]

        inputs = [given[i] for i in self._tensors]
        store = store_of(program.model)
        with (
            store.active() if store is not None else nullcontext(),
            torch.no_grad(),
            module_mode(program.model, program.guide, training=False),
        ):
            self.graph = trace(compute, self._leaves, inputs, modules)
        self.noise = [n.buffer() for n in self.graph.noise]
        self._call = compile_graph(self.graph, self._leaves, inputs, self.noise)

    def __call__(self, indices: Tensor) -> Tensor | None:
        """Log-weights for the data at `indices`; None where they are of another shape."""
        given = self.program.arguments.slice(indices)
        if signature(given) != self.key:
            return None
        for spec, buffer in zip(self.graph.noise, self.noise, strict=True):
            spec.draw(buffer)
        inputs = [given[i] for i in self._tensors]
        return self._call(*self._leaves, *inputs, *self.graph.buffers, *self.noise)[0]
