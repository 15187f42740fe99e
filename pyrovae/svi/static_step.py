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
        rates: the place that learning rates are read from; default: one of its own.

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
        rates: Tensor | None = None,
    ) -> None:
        self.compiled, self.update, self.before_step = compiled, update, before_step
        self.settings = update.settings
        # Generated code wants the layout that it was generated for.
        self.args = tuple(a.clone(memory_format=torch.contiguous_format) for a in args)
        self._idle = [(p, torch.zeros_like(p)) for p in idle]
        first = compiled.parameters[0]
        self.rates = rates_of(len(update.optimizer.param_groups), first.device) if rates is None else rates
        self.loss = torch.zeros((), dtype=first.dtype, device=first.device)
        self._rates = list(self.rates.unbind())
        self._rates_now: list[float] = []

    def __call__(self) -> None:
        """One step from what stands in the fixed tensors (and in `compiled.beta`)."""
        self.loss.copy_(self.compiled.at_beta(*self.args))
        for p, zero in self._idle:
            p.grad = zero
        if self.before_step is not None:
            self.before_step(self.compiled.parameters)
        if self.update.fuses:
            self.update(self._rates, self.loss)
        elif bool(self.loss.isfinite()):
            self.update()
        for p in self.compiled.parameters:
            p.grad = None

    def fill_rates(self) -> None:
        """Puts the optimizer's learning rates of now in their place, where they have changed."""
        now = [group["lr"] for group in self.update.optimizer.param_groups]
        if now != self._rates_now:
            self.rates.copy_(torch.tensor(now, dtype=self.rates.dtype, device="cpu"))
            self._rates_now = now

    def fixed(self) -> list[Tensor]:
        """The tensors that a captured step depends on and that others may replace."""
        return [*self.compiled.parameters, *self.update.tensors()]


def rates_of(number: int, device: torch.device) -> Tensor:
    """Places of learning rates, as the update's kernel reads them: doubles on a CPU, floats on a GPU."""
    return torch.zeros(number, dtype=torch.float32 if captures(device) else torch.float64, device=device)
