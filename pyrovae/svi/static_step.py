"""A compiled step whose arguments, rates, KL weight and loss stay in fixed tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..devices import captures
from ..objectives.compile.compiled import StepObjective
from .fused import FusedStep


class StaticStep:
    """Loss, gradients, clipping and update with nothing read back: fit to be captured in a CUDA graph.

    Where the loss is no finite number, nothing is updated.

    Args:
        compiled: loss and gradients.
        update: of the parameters.
        args: the graph's inputs, which are copied, and filled anew by the caller.
        before_step: called with the parameters between gradients and update (clipping).
        idle: parameters without a gradient that the optimizer moves all the same (by momentum).

    Attributes:
        args: fixed places of the inputs.
        rates: learning rate of each group of the optimizer, `[groups]`.
        loss: of the last run, in nats, summed over the batch.
        settings: of the optimizer, which a captured step keeps.
    """

    def __init__(
        self,
        compiled: StepObjective,
        update: FusedStep,
        args: Sequence[Tensor],
        before_step: Callable[[list[Tensor]], Any] | None = None,
        idle: Sequence[Tensor] = (),
    ) -> None:
        self.compiled, self.update, self.before_step = compiled, update, before_step
        self.settings = update.settings
        # Generated code wants the layout that it was generated for.
        self.args = tuple(a.clone(memory_format=torch.contiguous_format) for a in args)
        self._idle = [(p, torch.zeros_like(p)) for p in idle]
        first = compiled.parameters[0]
        # The kernel reads a double on a CPU and a float on a GPU.
        real = torch.float32 if captures(first.device) else torch.float64
        self.rates = torch.zeros(len(update.optimizer.param_groups), dtype=real, device=first.device)
        self.loss = torch.zeros((), dtype=first.dtype, device=first.device)
        self._rates = list(self.rates.unbind())

    def __call__(self) -> None:
        """One step from what stands in the fixed tensors (and in `compiled.beta`)."""
        self.loss.copy_(self.compiled.at_beta(*self.args))
        for p, zero in self._idle:
            p.grad = zero
        if self.before_step is not None:
            self.before_step(self.compiled.parameters)
        if self.update.fuses:
            self.update(self._rates, 1 - self.loss.isfinite().float())
        elif bool(self.loss.isfinite()):
            self.update()
        for p in self.compiled.parameters:
            p.grad = None

    def fixed(self) -> list[Tensor]:
        """The tensors that a captured step depends on and that others may replace."""
        return [*self.compiled.parameters, *self.update.tensors()]
