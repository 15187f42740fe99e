"""A compiled step whose arguments, rates, KL weight and loss stay in fixed tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .fused import FusedStep
from .objectives.compiled import StepObjective


class StaticStep:
    """Loss, gradients, clipping and update with nothing read back: fit to be captured in a CUDA graph.

    Args:
        compiled: loss and gradients.
        update: of the parameters.
        args: of the program; tensors among them are copied, and filled anew by the caller.
        before_step: called with the parameters between gradients and update (clipping).

    Attributes:
        args: fixed places of the arguments.
        rates: learning rate of each group of the optimizer, `[groups]`.
        loss: of the last run, in nats, summed over the batch.
    """

    def __init__(
        self,
        compiled: StepObjective,
        update: FusedStep,
        args: tuple[Any, ...],
        before_step: Callable[[list[Tensor]], Any] | None = None,
    ) -> None:
        self.compiled, self.update, self.before_step = compiled, update, before_step
        self.args = tuple(a.clone() if isinstance(a, Tensor) else a for a in args)
        first = compiled.parameters[0]
        # The kernel reads a double on a CPU and a float on a GPU.
        real = torch.float32 if first.device.type == "cuda" else torch.float64
        self.rates = torch.zeros(len(update.optimizer.param_groups), dtype=real, device=first.device)
        self.loss = torch.zeros((), dtype=first.dtype, device=first.device)
        self._rates = list(self.rates.unbind())

    def __call__(self) -> None:
        """One step from what stands in the fixed tensors (and in `compiled.beta`)."""
        self.loss.copy_(self.compiled.at_beta(*self.args))
        if self.before_step is not None:
            self.before_step(self.compiled.parameters)
        self.update(self._rates if self.update.fuses else None)
        for p in self.compiled.parameters:
            p.grad = None

    def fixed(self) -> list[Tensor]:
        """The tensors that a captured step depends on and that others may replace."""
        return [*self.compiled.parameters, *self.update.tensors()]
