"""Log-weights of a program as one compiled graph, for chunks of one shape."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pyro
import torch
from torch import Tensor

from ..checks.in_support import values_known_later
from ..handlers.substitute import Substitute
from ..inspection import PARTICLES, Program
from ..modes import module_mode
from ..parameters import by_leaf, capture_parameters, store_of
from ..seeds import seeded
from ..sites import collect
from .codegen import compile_module
from .inputs import signature
from .partition import partition, placeholders
from .tracing import UntraceableError, trace


class CompiledWeights:
    """`ln w`, `[K, n]`, for K samples of n data; the numbers of `Program.run` given the same noise.

    In three parts: what depends on parameters alone (a VampPrior's encoded pseudo-inputs) runs
    once, what depends on the data too (the encoder) once a chunk of data, the rest once a chunk
    of samples. Only the last is worth generating code for.

    Raises:
        UntraceableError: why it cannot be one graph.
    """

    def __init__(self, program: Program, indices: Tensor, num_samples: int) -> None:
        if not (program.takes_slices and program.vectorised):
            raise UntraceableError(
                "it takes its data whole, its plate stands for more data than it takes, or it does not broadcast over "
                "samples"
            )
        self.program, self.num_samples = program, num_samples
        given = program.arguments.slice(indices)
        with (
            seeded(0, "compile", device=given[0].device),
            torch.no_grad(),
            module_mode(program.model, program.guide, training=False) as modules,
            capture_parameters() as parameters,
        ):
            program.run(indices, 1)
        names, self._leaves = by_leaf(parameters)
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
            pyro.validation_enabled(False),  # its checks read values
            values_known_later(),
            module_mode(program.model, program.guide, training=False),
        ):
            self.graph = trace(compute, self._leaves, inputs, modules)
        self.noise = [n.buffer() for n in self.graph.noise]
        kinds = [(0, self._leaves), (1, inputs), (0, self.graph.buffers), (2, self.noise)]
        cut = _cut(placeholders(self.graph.module), kinds)
        self._names = dict(zip(("leaves", "inputs", "buffers", "noise"), cut, strict=True))
        once, per_chunk, rest = partition(self.graph.module, [level for level, ts in kinds for _ in ts])
        self._once, self._per_chunk, self._rest = once, per_chunk, rest
        self._values: list[dict[str, Tensor]] = [{}, {}]
        self._versions: tuple[Any, ...] | None = None
        self._indices: Tensor | None = None
        with torch.no_grad():
            given_now = self._given(inputs) | self._named("noise", self.noise)
            known = given_now | once.run(given_now)
            known |= per_chunk.run(known)
            example = [known[name] for name in rest.inputs]
            self._call = compile_module(rest.module, example)

    def _named(self, kind: str, tensors: Any) -> dict[str, Tensor]:
        return dict(zip(self._names[kind], tensors, strict=True))

    def _given(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        known = self._named("leaves", self._leaves) | self._named("buffers", self.graph.buffers)
        return known | self._named("inputs", inputs)

    def __call__(self, indices: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor | None:
        """Log-weights for the data at `indices`, under fresh noise or that given; None where shapes are others."""
        # In-place updates of weights count a tensor's version up.
        versions = tuple((t.data_ptr(), t._version) for t in (*self._leaves, *self.graph.buffers))
        if versions != self._versions or indices is not self._indices:
            given = self.program.arguments.slice(indices)
            if signature(given) != self.key:
                return None
            known = self._given([given[i] for i in self._tensors])
            if versions != self._versions:
                self._values[0] = self._once.run(known)
            self._values[1] = known | self._values[0]
            self._values[1] |= self._per_chunk.run(self._values[1])
            self._versions, self._indices = versions, indices
        if noise is None:
            for spec, buffer in zip(self.graph.noise, self.noise, strict=True):
                spec.draw(buffer)
        known = self._values[1] | self._named("noise", self.noise if noise is None else noise)
        return self._call(*(known[name] for name in self._rest.inputs))[0]


def _cut(names: list[str], kinds: list[tuple[int, list[Tensor]]]) -> list[list[str]]:
    parts, start = [], 0
    for _, tensors in kinds:
        parts.append(names[start : start + len(tensors)])
        start += len(tensors)
    return parts
