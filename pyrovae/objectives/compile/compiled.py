"""An objective of a program as one compiled graph, or the reason why it is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import pyro
import torch
from torch import Tensor, nn

from ...programs import store_of
from ...programs.checks.in_support import Support, values_known_later
from ...programs.compile.compiled_loss import CompiledLoss
from ...programs.compile.inputs import objects_in
from ...programs.compile.tracing import UntraceableError
from ...programs.watch.ambient import handlers
from ...programs.watch.reachable import search
from ...programs.watch.reading import Ran
from ...programs.watch.trust import PLAIN
from ...programs.watch.watching import Watch
from ..beta import BetaELBO
from ..differentiable import surrogate_and_value

# Changes of what is read that leave the graph as it is: so many are looked into, each by a trace.
LOOKS = 8


class StepObjective(Protocol):
    """Interface of an objective for a step on fixed tensors.

    Attributes:
        key: shapes of its arguments.
        parameters: that a step updates.
        beta: its KL weight, where it changes.
    """

    key: tuple[Any, ...]
    parameters: list[Tensor]

    @property
    def beta(self) -> Tensor | None: ...  # noqa: D102

    def at_beta(self, *args: Any) -> Tensor:
        """The loss, summed over the batch, in nats; gradients go into `.grad`."""

    def changed(self) -> str | None:
        """Difference of what the program reads from what it read when it was compiled; None without one."""

    def parts(self, rows: tuple[Any, ...]) -> list[tuple[CompiledObjective, tuple[Any, ...]]]:
        """Each graph that a step over these rows runs, and rows for it."""


class CompiledObjective:
    """Loss and gradients in one graph, for arguments of one shape; a changing beta is an input of it.

    With `generate=False` the graph runs as it was traced, without code of its own. With `hold`, whole numbers in
    small tensors among the arguments may be part of it, where the program's course depends on them. With `laws`,
    draws may have a law that the program computes. The loss is nan where observed values lie outside of their
    support and Pyro's validation was on.

    Attributes:
        inputs: how arguments become the graph's inputs.
        parameters: trained leaves that the program asks for.
        watch: what the graph took for granted.
        device: of the parameters.
        idle: parameters without a gradient.
        taken: steps taken by it.

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
        kwargs: Mapping[str, Any] | None = None,
        hold: bool = False,
        laws: bool = True,
    ) -> None:
        if handlers():
            raise UntraceableError(
                "a handler is around its steps, which others may not have; try it around the model"
            )
        if any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in modules):
            raise UntraceableError("BatchNorm in train mode writes its running statistics")
        self._annealed = objective if isinstance(objective, BetaELBO) else None

        def loss(
            given: tuple[Any, ...], named: dict[str, Any], extra: Sequence[Tensor]
        ) -> tuple[Tensor, Tensor]:
            traced: Any = objective
            if self._annealed is not None:
                traced = BetaELBO(self._annealed.base, extra[0])  # type: ignore[arg-type]  # a number that the graph takes
            support = Support()
            with values_known_later(), support if self._validates else nullcontext():
                surrogate, value = surrogate_and_value(traced, model, guide, given, named)
            return surrogate, support.or_nan(value)

        self._store = store_of(model)
        self._validates = bool(torch.distributions.Distribution._validate_args)
        self._beta = torch.zeros((), device=next((p.device for p in parameters.values()), None))
        programs = {"model": model, "guide": guide, "args": args, "kwargs": dict(kwargs or {})}
        # A transform is a module that nobody calls as one.
        reached = search(Ran(None), {"model": model, "guide": guide}).modules
        modules = list({id(m): m for m in (*modules, *reached)}.values())
        with self._active():
            try:
                self.graph = CompiledLoss(
                    loss, parameters, args, kwargs, self._extra(), modules, generate, programs, hold, laws
                )
            except NotImplementedError as error:
                raise UntraceableError(str(error)) from error
        self.inputs, self.key, self.parameters = self.graph.inputs, self.graph.key, self.graph.mentioned
        self._roots = {"model": model, "guide": guide, "modules": tuple(modules)}
        # Values of plain arguments are compared as arguments; what is inside of an object is not.
        self._roots |= {
            f"argument {i}": o for i, o in enumerate(objects_in((*args, *(kwargs or {}).values())))
        }
        self._given = dict(parameters)
        self._objective = objective if self._annealed is None else objective.base
        self.watch = self._watch(self.graph.graph.ran)
        reason = self.watch.refuse()
        if reason is not None:
            raise UntraceableError(reason)
        self._looks = self.taken = 0
        self.device = self.parameters[0].device if self.parameters else torch.device("cpu")
        with_gradient = set(_ids(self.graph.used))
        self.idle = [p for p in self.parameters if id(p) not in with_gradient]

    def _watch(self, ran: Any) -> Watch:
        store: Any = self._store if self._store is not None else pyro.get_param_store()
        tables: list[Any] = [] if self._store is not None else [(vars(store), {"_params": store._params})]
        # A module under a name that another one has is none of the store's.
        found = {n: p for n, p in self._given.items() if store._params.get(n) is p}
        tables += [(store._params, found), (store._constraints, found.keys() & store._constraints.keys())]
        settings = {k: v for k, v in vars(self._objective).items() if isinstance(v, PLAIN) and "jit" not in k}
        tables.append((vars(self._objective), settings))
        leaves = list({id(p): p for p in self._given.values()}.values())
        return Watch(ran, self._roots, tables, leaves)

    def _active(self) -> Any:
        return self._store.active() if self._store is not None else nullcontext()

    @property
    def beta(self) -> Tensor | None:
        """The graph's KL weight; None where the objective has none."""
        return self._beta if self._annealed is not None else None

    def _extra(self) -> list[Tensor]:
        return [] if self._annealed is None else [self._beta]

    def changed(self) -> str | None:
        """Difference of what the program reads, where that makes it another program; None without one.

        Where other values are read than then, the program is traced anew: is it the same graph, the step stays.
        """
        relaid = self.graph.relaid()
        if relaid is not None or self.watch.holds():
            return relaid
        changes = self.watch.changes()
        if not changes:
            return None
        what = "; ".join(changes[:3])
        if self.watch.parameters_changed:
            return what
        self._looks += 1
        if self._looks > LOOKS:
            return f"{what}; it has changed {LOOKS} times before"
        with self._active():
            try:
                now, used, mentioned = self.graph.trace()
            except (UntraceableError, NotImplementedError):
                return what
            alike = _ids(used) == _ids(self.graph.used) and _ids(mentioned) == _ids(self.parameters)
            if not (alike and now.same_as(self.graph.graph)):
                return what
            self.watch = self._watch(now.ran)
        return self.watch.refuse()

    def parts(self, rows: tuple[Any, ...]) -> list[tuple[CompiledObjective, tuple[Any, ...]]]:
        """The graph, and the rows that it takes."""
        return [(self, rows)]

    def __call__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """The loss at the objective's beta, summed over the batch, in nats; gradients go into `.grad`."""
        self.fill_beta()
        return self.graph(self.inputs.tensors(args, kwargs), self._extra())

    def fill_beta(self) -> None:
        """Puts the objective's KL weight of now into the graph's."""
        if self._annealed is not None:
            self._beta.fill_(self._annealed.beta)

    def at_beta(self, *tensors: Any) -> Tensor:
        """The same of the graph's inputs, with the number that is in `beta` now."""
        return self.graph(tensors, self._extra())

    def draw(self, *tensors: Any) -> None:
        """Fresh noise, of torch's generators as they stand."""
        self.graph.draw(tensors, self._extra())

    def evaluate(self, *tensors: Any) -> tuple[Tensor, list[Tensor]]:
        """Loss and gradients under the noise that stands in the graph, at the number in `beta`."""
        return self.graph.evaluate(tensors, self._extra())

    def moved(self, *tensors: Any) -> tuple[Tensor, list[Tensor]]:
        """The same with all numbers moved by rounding."""
        return self.graph.moved(tensors, self._extra())

    def share_beta(self, other: CompiledObjective) -> None:
        """Takes the tensor of another objective for its KL weight."""
        self._beta = other._beta


def _ids(tensors: Sequence[Tensor]) -> list[int]:
    return [id(t) for t in tensors]
