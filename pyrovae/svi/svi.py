"""A drop-in for `pyro.infer.SVI` that compiles, and takes torch optimizers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from operator import is_
from typing import Any, Literal

import torch
from pyro.infer.elbo import ELBO as PyroELBO
from pyro.infer.util import torch_item
from torch import Tensor, nn

from ..devices import noise_state, put_back
from ..objectives.compile.agreement import is_due
from ..objectives.compile.compiled import CompiledObjective, StepObjective
from ..objectives.compile.kinds import Kinds
from ..objectives.differentiable import eager_twin, is_known
from ..objectives.first_step import check_first_step
from ..programs import capture_parameters, module_mode
from ..programs.compile.tracing import UntraceableError
from ..programs.own_memory import OwnMemory, move_out
from .captured_step import CapturedStep
from .comparing import compared
from .pending import Losses, PendingLoss
from .static_step import StaticStep
from .update import Update

# Tracing and compiling take 2-15 s; a compiled step saves 1-4 ms. Counted in steps, never timed:
# a rerun must be the same run.
AUTO_STEPS = 2000


class SVI:
    """Stochastic variational inference: the signature and meaning of `pyro.infer.SVI`.

    Args:
        model, guide: Pyro programs.
        optim: a `pyro.optim` optimizer; or a torch optimizer, its class, a partial of one or any
            function `parameters -> torch.optim.Optimizer`. The torch forms hold all parameters
            in ONE optimizer (Pyro makes one object per parameter, which costs more than the
            arithmetic on small networks).
        loss: one of Pyro's ELBOs, or a function `(model, guide, *args) -> loss`.
        loss_and_grads: as in Pyro; by default the loss's own.
        compile: run loss, gradients and update as one compiled graph: the same numbers for the same
            noise, in a fraction of the time. True: from the second step on. "auto": from step
            2000 on, when a run has shown to be long (tracing and compiling take some seconds).
            Each shape of arguments has a graph of its own, made when it comes the second time ("auto": after
            2000 steps of it), up to four. What cannot be one graph, and further shapes, run eagerly, which
            is said once. On CUDA the whole step (Adam and AdamW) of one shape is one CUDA graph, and what is
            waited for is the loss alone.
        before_step: called with the parameters between gradients and update (clipping).
        lazy: where a step is one CUDA graph, give its loss as a `PendingLoss`, which is read from the device when it is
            looked at (`float(loss)`, in print, in arithmetic): the next step does not wait for it. Up to 256 wait at
            once. A loss that is no finite number changes nothing, and is found when it is read: steps are eager from
            there on, which is said. Elsewhere losses are floats as ever.

    Attributes:
        refused: why the program, or some of its steps, are not compiled, once that was tried; with its file
            and line where a line is to blame.
        discarded: whether no compiled step is taken any more.
        compiled_steps: so many were taken.
        update: of the parameters, by `optim`.
        checked: whether the objective was found to fit the program; else it is asked in the first step.
        given: data beside the arguments of a step whose memory no parameter may share.

    Example:
        >>> import functools
        >>> from pyro.infer import Trace_ELBO
        >>> adam = functools.partial(torch.optim.Adam, lr=1e-3)
        >>> svi = SVI(lambda: None, lambda: None, adam, Trace_ELBO())

    Raises:
        TypeError: for an optimizer that is none of these.
        ValueError: at the first step, where a given torch optimizer lacks parameters of the program.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        optim: Any,
        loss: Any,
        loss_and_grads: Callable[..., Any] | None = None,
        *,
        compile: bool | Literal["auto"] = "auto",
        before_step: Callable[[list[Tensor]], None] | None = None,
        lazy: bool = False,
    ) -> None:
        if compile not in (True, False, "auto"):
            raise ValueError(f'expected compile to be True, False or "auto", got {compile!r}')
        if isinstance(loss, str | type) or not (callable(loss) or hasattr(loss, "loss")):
            raise TypeError(f"expected an ELBO object or a function as loss, got {loss!r}; try Trace_ELBO()")
        self.model = model
        self.guide = guide
        self.optim = optim
        self._take(optim)
        self.compile: bool | Literal["auto"] = compile
        loss = eager_twin(loss)
        self.objective = loss if isinstance(loss, PyroELBO) and loss_and_grads is None else None
        self.before_step = before_step
        self.lazy, self._losses = lazy, Losses(self._not_finite)
        self.refused: str | None = None
        self._kinds = Kinds()
        self._seen: tuple[dict[str, Tensor], list[nn.Module]] = ({}, [])
        self._steps = self.compiled_steps = 0
        self.discarded = self.checked = self._infinite = False
        self.given: Any = None
        self._apart: set[int] = set()
        if isinstance(loss, PyroELBO):
            elbo: Any = loss
            self.loss, self.loss_and_grads = elbo.loss, loss_and_grads or elbo.loss_and_grads
        else:
            self.loss, self.loss_and_grads = loss, loss_and_grads or _with_backward(loss)
        self._made_of = (self.model, self.guide, self.loss_and_grads)

    def _take(self, optim: Any) -> None:
        """Updates by this optimizer from here on."""
        self.update = Update(optim)
        self._captured = CapturedStep(self.update)

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """The one torch optimizer over all parameters, once there is one; None with one of Pyro's."""
        return self.update.optimizer

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """One gradient step; returns the loss, summed over the batch, in nats."""
        if self.optim is not self.update.optim:  # exchanged, as in Pyro
            self._take(self.optim)
        compiled = self._compiled_for(args, kwargs)
        loss: Any = None if compiled is None else self._compiled_step(compiled, args, kwargs)
        if loss is None:
            loss, used = self._eager(args, kwargs)
            if compiled is not None and self._infinite and math.isfinite(torch_item(loss)):
                self.discard(f"its loss is no finite number where the program's is {torch_item(loss):.7g}")
            if self.compile and not self.discarded:
                self._kinds.ran(args, kwargs, self._seen)
            self.update(used, self.before_step)
        else:
            self.compiled_steps += 1
        self._steps += 1
        if isinstance(loss, PendingLoss):
            return loss
        return type(loss)(map(torch_item, loss)) if isinstance(loss, tuple) else torch_item(loss)

    def _not_finite(self, losses: list[float]) -> None:
        if not self.discarded:
            self.discard(
                f"its loss was {losses[0]} at {len(losses)} of its last steps, which changed nothing (lazy=True finds "
                "this late)"
            )

    def __getstate__(self) -> dict[str, Any]:
        """All but compiled graphs, which a copy makes anew."""
        return vars(self) | {"_kinds": Kinds(), "_captured": None, "_losses": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _losses=Losses(self._not_finite))
        self._captured = CapturedStep(self.update)

    @property
    def compiled_share(self) -> float:
        """Compiled steps among all so far; None compiled: 0."""
        return self.compiled_steps / max(1, self._steps)

    def _eager(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, list[Tensor]]:
        """Loss, and the parameters that the program asked for; gradients go into `.grad`."""
        with (
            module_mode(self.model, self.guide, training=None) as modules,
            OwnMemory(args, kwargs, self.given),
            capture_parameters() as used,
        ):
            loss = self.loss_and_grads(self.model, self.guide, *args, **kwargs)
        self._move_out(used, (args, kwargs))
        self._seen = (used, modules)
        if not self.checked and self.objective is not None:
            self.checked = True
            check_first_step(self.objective, self.model, self.guide, args, kwargs)
        return loss, list(dict.fromkeys(used.values()))

    def _move_out(self, used: dict[str, Tensor], args: Any) -> None:
        """Leaves no parameter in the memory of data, which an update would change."""
        move_out(used.values(), args)
        new = [p for p in used.values() if id(p) not in self._apart]
        if new:
            move_out(new, self.given)
            self._apart.update(map(id, new))

    def _compiled_step(
        self, compiled: CompiledObjective, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> float | PendingLoss | None:
        """The loss of a compiled step; None where an eager one has to be taken, of which nothing is done yet."""
        self._infinite = False
        why = compiled.changed()
        own = (self.model, self.guide, self.loss_and_grads)
        if not all(map(is_, own, self._made_of)):
            why = "its model, guide or loss is another one"
        if why is not None:
            self.discard(why)
            return None
        if any(map(self._has_gradient, compiled.parameters)):
            return None  # of a user's own term: an eager step adds to it
        device = compiled.device
        state = noise_state(device)
        # Pyro leaves zeros in the place of gradients, and torch nothing.
        grads = [(p, p.grad if self.update.is_pyros else None) for p in compiled.parameters]
        if is_due(compiled.taken + 1) and not self.agrees(compiled, args, kwargs):
            return None
        compiled.taken += 1
        place = self._captured.run(compiled, args, kwargs, self.before_step)
        if place is not None and self.lazy:
            return self._losses.add(place)
        loss = float(compiled(args, kwargs) if place is None else place)
        if math.isfinite(loss):
            if place is None:
                self.update(compiled.parameters, self.before_step, fused=self._captured.graph is None)
            return loss
        # Pyro's validation, or its warning, says what is wrong.
        self._infinite = True
        put_back(state, device)
        for p, grad in grads:
            p.grad = grad
        return None

    def _has_gradient(self, p: Tensor) -> bool:
        """Whether a gradient stands in a parameter; zeros are what a step leaves.

        No version tells: what is written into `p.grad.data` counts none.
        """
        return p.grad is not None and bool(p.grad.any())

    def agrees(self, compiled: CompiledObjective, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the compiled step gives the program's loss and gradients under the noise that comes next.

        Generators and gradients are after as they were before. Where the two differ, the compiled step is
        discarded, which is said.
        """
        why = compared(compiled, self._eager, args, kwargs)
        if why is not None:
            self.discard(why)
        return why is None

    def discard(self, why: str, say: bool = True) -> None:
        """Takes no compiled steps from here on, and says why."""
        self.refused = why
        self._kinds.graphs = []
        self._captured.drop()
        self.discarded = True
        if say:
            warnings.warn(
                f"the compiled step is no longer this program's, which runs eagerly from here on: {why}",
                stacklevel=4,
            )

    def static_step(
        self, compiled: StepObjective, args: Sequence[Tensor], rates: Tensor | None = None
    ) -> StaticStep:
        """A compiled step on fixed tensors, with this object's optimizer and `before_step`."""
        return self._captured.on_fixed(compiled, args, self.before_step, rates)

    def _compiled_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> CompiledObjective | None:
        compiled = self._kinds.graph_for(args, kwargs)
        if compiled is not None or not self.compile or self.discarded:
            return compiled
        after = AUTO_STEPS if self.compile == "auto" else 1
        if self._steps < after:
            return None
        if self.objective is not None and not is_known(self.objective):
            # Whatever the arguments are.
            self.prepare(args, {}, (), kwargs)
            return None
        due = self._kinds.due(args, kwargs, after)
        if due is not None:
            (parameters, modules), hold = due
            compiled = self.compile_for(args, parameters, modules, kwargs, hold)
            if compiled is not None:
                self._kinds.graphs.insert(0, compiled)
        elif self.refused is None:
            self.refused = self._kinds.too_many()
            if self.refused is not None:
                warnings.warn(f"some steps are not compiled: {self.refused}", stacklevel=3)
        return compiled

    def prepare(
        self,
        args: tuple[Any, ...],
        parameters: Mapping[str, Tensor],
        modules: Sequence[nn.Module],
        kwargs: Mapping[str, Any] | None = None,
    ) -> bool:
        """Compiles for arguments of these shapes; returns whether it could (`refused` says why not).

        Args:
            args, kwargs: of the model and guide.
            parameters: name to unconstrained leaf, all that the programs use.
            modules: the modules that they run.
        """
        compiled = self.compile_for(args, parameters, modules, kwargs)
        self._kinds.graphs = [] if compiled is None else [compiled]
        self.discarded = compiled is None
        return compiled is not None

    @property
    def compiled_objective(self) -> CompiledObjective | None:
        """Loss and gradients in one graph, once compiled: of the arguments that came last."""
        return next(iter(self._kinds.graphs), None)

    def compile_for(
        self,
        args: tuple[Any, ...],
        parameters: Mapping[str, Tensor],
        modules: Sequence[nn.Module],
        kwargs: Mapping[str, Any] | None = None,
        hold: bool = False,
    ) -> CompiledObjective | None:
        """Loss and gradients in one graph for arguments of these shapes; None, and `refused` set, where not.

        With `hold`, whole numbers in small tensors may be part of it.
        """
        self.update.names |= {id(p): name.replace("$$$", ".") for name, p in parameters.items()}
        try:
            if self.objective is None:
                raise UntraceableError("its loss is a function, not one of Pyro's ELBOs")
            return CompiledObjective(
                self.objective, self.model, self.guide, args, parameters, modules, kwargs=kwargs, hold=hold
            )
        except UntraceableError as error:
            what = "a step with these arguments" if self._kinds.graphs else "this program"
            if self.refused is None:
                warnings.warn(f"{what} is not compiled and runs eagerly: {error}", stacklevel=3)
            self.refused = str(error)
            return None

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> Any:
        """The loss without a step, summed over the batch, in nats."""
        with torch.no_grad():
            loss = self.loss(self.model, self.guide, *args, **kwargs)
        return type(loss)(map(torch_item, loss)) if isinstance(loss, tuple) else torch_item(loss)


def _with_backward(loss: Callable[..., Any]) -> Callable[..., Any]:
    def loss_and_grads(*args: Any, **kwargs: Any) -> Any:
        value = loss(*args, **kwargs)
        if getattr(value, "requires_grad", False):
            value.backward(retain_graph=True)
        return value

    return loss_and_grads
