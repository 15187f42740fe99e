"""Gradients of per-datum distributions, compiled once for all chunks of data where that is asked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...programs import Program
from ...programs.compile.compiled_gradients import ChunkLoss, CompiledGradients
from ...programs.compile.tracing import UntraceableError
from ...programs.latents.densities import Densities
from ...programs.latents.local_guides import LocalGuide
from ..core.compile_when import Compile
from .local_fit import LocalFlow

Gradients = Callable[[], Sequence[Tensor | None]]


class LocalSteps:
    """Makes the gradient functions of chunk after chunk.

    A compiled one draws the noise of an eager one.

    Args:
        num_particles: draws per datum and step.
        compile: whether to try.
        rows: data of a full chunk. Others run eagerly, whichever comes first: their numbers must not depend on
            which of the chunks this process got.
    """

    def __init__(self, num_particles: int, compile: Compile, rows: int) -> None:
        self.num_particles, self.compile, self.rows = num_particles, compile, rows
        self._compiled: dict[str, CompiledGradients | None] = {}

    def own(self, local: LocalGuide) -> Gradients:
        """Gradient of -E ln w by the parameters of each datum's own guide."""
        program, leaves = local.program, local.leaves

        def loss(leaves: Sequence[Tensor], own: Sequence[Tensor], given: tuple[Any, ...]) -> Tensor:
            return -local.log_weights(leaves, given, self.num_particles).mean(0).sum()

        def eager() -> Sequence[Tensor | None]:
            with torch.enable_grad():
                lw = program.run(local.indices, self.num_particles).log_weights()
                return torch.autograd.grad(-lw.mean(0).sum(), leaves, allow_unused=True)

        return self._compile("own", local.given, local.indices, leaves, [], loss) or eager

    def flow(self, flow: LocalFlow, program: Program, indices: Tensor) -> Gradients:
        """Gradient of -E ln w by the parameters of each datum's flow."""
        densities, n = Densities(program, indices, self.num_particles), len(indices)

        def loss(leaves: Sequence[Tensor], own: Sequence[Tensor], given: tuple[Any, ...]) -> Tensor:
            u, log_q = LocalFlow.draw_given(leaves, own, self.num_particles)
            terms = densities.terms_given(u, given, guide=False)
            return -(terms.prior + terms.likelihood - log_q).mean(0).sum()

        def eager() -> Sequence[Tensor | None]:
            with torch.enable_grad():
                u, log_q = flow.draw(self.num_particles)
                terms = densities.terms(u)
                lw = (terms.prior + terms.likelihood - log_q)[:, :n]
                return torch.autograd.grad(-lw.mean(0).sum(), flow.leaves, allow_unused=True)

        return self._compile("flow", program, indices, flow.leaves, flow.own, loss) or eager

    def _compile(
        self,
        kind: str,
        program: Program,
        indices: Tensor,
        leaves: Sequence[Tensor],
        own: Sequence[Tensor],
        loss: ChunkLoss,
    ) -> Gradients | None:
        if not self.compile or not leaves or len(indices) != self.rows:
            return None
        if kind not in self._compiled:
            try:
                self._compiled[kind] = CompiledGradients(program, indices, leaves, own, loss)
            except UntraceableError as error:
                self._compiled[kind] = None
                warnings.warn(f"this program is not compiled and runs eagerly: {error}", stacklevel=4)
        compiled = self._compiled[kind]
        return None if compiled is None else compiled.bind(indices, leaves, own)
