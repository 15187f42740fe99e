"""The step that is one CUDA graph: loss, gradients, clipping and update on fixed tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ..devices import captures
from ..objectives.compile.compiled import CompiledObjective, StepObjective
from .cuda_graph import Captured
from .static_step import StaticStep
from .update import Update

Before = Callable[[list[Tensor]], None]


class CapturedStep:
    """The step of one compiled objective, captured on a GPU: it and the optimizer's state stay in their places.

    Args:
        update: of the parameters.

    Attributes:
        static: the step on fixed tensors, once there is one.
        graph: the same as one CUDA graph.
    """

    def __init__(self, update: Update) -> None:
        self.update = update
        self.static: StaticStep | None = None
        self.graph: Captured | None = None

    def run(
        self,
        compiled: CompiledObjective,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        before: Before | None,
    ) -> Tensor | None:
        """Takes a step, and returns the place of its loss; None where it is not captured, and nothing is done."""
        if not self._serves(compiled, args, kwargs, before):
            return None
        assert self.static is not None and self.graph is not None
        for place, value in zip(self.static.args, compiled.inputs.tensors(args, kwargs), strict=True):
            place.copy_(value)
        self.static.fill_rates()
        compiled.fill_beta()
        self.graph()
        return self.static.loss

    def _serves(
        self,
        compiled: CompiledObjective,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        before: Before | None,
    ) -> bool:
        """Whether this objective's step is captured, which it is not on a CPU, nor where the update is not fused."""
        if self.static is not None and self.static.compiled is not compiled:
            return False
        if self.update.is_pyros or not all(captures(p.device) for p in compiled.parameters):
            return False
        if self.static is not None and self.static.settings != self.static.update.settings:
            self.drop()
        if self.static is None or self.graph is None:
            step = self.on_fixed(compiled, compiled.inputs.tensors(args, kwargs), before)
            if not step.update.fuses:
                return False
            self.static, self.graph = step, Captured(step, step.loss.device, step.fixed)
        return self.graph.refused is None and self.static.update.fuses

    def on_fixed(
        self,
        compiled: StepObjective,
        args: Sequence[Tensor],
        before: Before | None,
        rates: Tensor | None = None,
    ) -> StaticStep:
        """A compiled step on fixed tensors, with clipping and the optimizer's update."""
        update = self.update.fused(compiled.parameters)
        without = set(map(id, getattr(compiled, "idle", ())))
        idle = [p for p in compiled.parameters if id(p) in without and self.update.has_moved(p)]
        self.update.will_move(p for p in compiled.parameters if id(p) not in without)
        return StaticStep(compiled, update, args, before, idle, rates)

    def drop(self) -> None:
        """Forgets the step and its graph."""
        self.static = self.graph = None
