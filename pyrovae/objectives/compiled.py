"""An objective of a program as one compiled graph, or the reason why it is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..programs import store_of
from ..programs.compiling import CompiledLoss
from ..programs.tracing import UntraceableError
from .beta import BetaELBO
from .differentiable import surrogate_and_value


class StepObjective(Protocol):
    """What a step on fixed tensors needs of an objective.

    Attributes:
        key: shapes of its arguments.
        parameters: whose gradients it finds.
        beta: its KL weight, where it changes.
    """

    key: tuple[Any, ...]
    parameters: list[Tensor]

    @property
    def beta(self) -> Tensor | None: ...  # noqa: D102

    def at_beta(self, *args: Any) -> Tensor:
        """The loss, summed over the batch, in nats; gradients go into `.grad`."""


class CompiledObjective:
    """Loss and gradients in one graph, for arguments of one shape; a changing beta is an input of it.

    With `generate=False` the graph runs as it was traced, without code of its own.

    Raises:
        UntraceableError: why it cannot be one graph.
    """

    def __init__(
        self,
        objective: Any,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        args: tuple[Any, ...],
        parameters: Mapping[str, Tensor],
        modules: Sequence[nn.Module],
        generate: bool = True,
    ) -> None:
        if any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in modules):
            raise UntraceableError("BatchNorm in train mode writes its running statistics")
        self._annealed = objective if isinstance(objective, BetaELBO) else None

        def loss(given: tuple[Any, ...], extra: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
            if self._annealed is None:
                return surrogate_and_value(objective, model, guide, given)
            traced = BetaELBO(self._annealed.base, extra[0])  # type: ignore[arg-type]
            return surrogate_and_value(traced, model, guide, given)

        store = store_of(model)
        self._beta = torch.zeros((), device=next((a.device for a in args if isinstance(a, Tensor)), None))
        with store.active() if store is not None else nullcontext():
            try:
                self.graph = CompiledLoss(loss, parameters, args, self._extra(), modules, generate)
            except NotImplementedError as error:
                raise UntraceableError(str(error)) from error
        self.key = self.graph.key
        self.parameters = self.graph.used

    @property
    def beta(self) -> Tensor | None:
        """The graph's KL weight; None where the objective has none."""
        return self._beta if self._annealed is not None else None

    def _extra(self) -> list[Tensor]:
        return [] if self._annealed is None else [self._beta]

    def __call__(self, *args: Any) -> Tensor:
        """The loss at the objective's beta, summed over the batch, in nats; gradients go into `.grad`."""
        self.fill_beta()
        return self.graph(args, self._extra())

    def fill_beta(self) -> None:
        """Puts the objective's KL weight of now into the graph's."""
        if self._annealed is not None:
            self._beta.fill_(self._annealed.beta)

    def at_beta(self, *args: Any) -> Tensor:
        """The same with the number that is in `beta` now."""
        return self.graph(args, self._extra())

    def evaluate(self, *args: Any) -> tuple[Tensor, list[Tensor]]:
        """Loss and gradients under the noise that stands in the graph, at the number in `beta`."""
        return self.graph.evaluate(args, self._extra())

    def share_beta(self, other: CompiledObjective) -> None:
        """Takes the tensor of another objective for its KL weight."""
        self._beta = other._beta
