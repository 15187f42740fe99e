"""One kernel for the update of all parameters: torch's fused one, or code generated for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import is_
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from .. import devices
from ..programs.compile.strides import is_dense
from ..programs.compile.tracing import UntraceableError
from ..programs.watch.layouts import Layouts
from .adam_state import Bound, Kept, bring
from .generated_update import generated_adam

_KERNELS: dict[type, Any] = {torch.optim.Adam: torch._fused_adam_, torch.optim.AdamW: torch._fused_adamw_}
_FLAGS = ("amsgrad", "maximize", "capturable", "differentiable")


class FusedStep:
    """`optimizer.step()` without its bookkeeping, for Adam and AdamW; its own step for all others.

    The state is the optimizer's own (`optimizer.state`), so that it can be saved, loaded and
    continued by the optimizer itself. What torch made in steps of its own, or loaded, is brought to where the
    kernel reads it.

    The kernel walks parameter, gradient and moments by one index and reads the numbers of steps on their device:
    the CPU's computes wrong numbers where that does not hold, and the one of CUDA faults. So it is checked, on every
    device.

    Args:
        optimizer: of torch.
        name_of: a parameter's name, for errors.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, name_of: Callable[[Tensor], str | None] = lambda p: None
    ) -> None:
        self.optimizer, self.name_of = optimizer, name_of
        self._kernel: Any = _KERNELS.get(type(optimizer))
        self._bound: dict[tuple[int, torch.dtype], Bound] = {}
        self._kept: Kept | None = None
        self._looked: tuple[list[Tensor], Layouts, bool, set[str]] = ([], Layouts([]), False, set())

    @property
    def fuses(self) -> bool:
        """Whether the update is the fused kernel's, and not the optimizer's own."""
        return (
            self._kernel is not None
            and not _has_more(self.optimizer)
            and all(self._plain(g) for g in self.optimizer.param_groups)
            and self._walks()
        )

    def _plain(self, group: dict[str, Any]) -> bool:
        decoupled = (
            bool(group.get("decoupled_weight_decay", False)) and type(self.optimizer) is torch.optim.Adam
        )
        return not decoupled and not any(group.get(f) for f in _FLAGS) and isinstance(group["lr"], float)

    def _walks(self) -> bool:
        """Whether the kernel can walk all parameters by one index; looked into where one is laid out anew."""
        groups = [g["params"] for g in self.optimizer.param_groups]
        params = [p for group in groups for p in group]
        before, layouts, walks, fused = self._looked
        if (
            len(before) == len(params)
            and all(map(is_, before, params))
            and layouts.hold()
            and fused == devices.FUSES
        ):
            return walks
        walks = all(
            p.is_floating_point() and p.device.type in devices.FUSES and is_dense(p) for p in params
        ) and all(len({p.device for p in group}) <= 1 for group in groups)
        self._looked = params, Layouts(params), walks, set(devices.FUSES)
        return walks

    @property
    def settings(self) -> list[tuple[Any, ...]]:
        """Settings that a captured update keeps: parameters and numbers of each group, its learning rate apart."""
        return [
            (len(g["params"]), g.get("betas"), g.get("weight_decay"), g.get("eps"))
            for g in self.optimizer.param_groups
        ]

    def tensors(self) -> list[Tensor]:
        """Parameters and state, as far as there is one."""
        if self._kept is None or not self._kept.stands():
            self._kept = Kept(self.optimizer)
        return self._kept.tensors

    def __call__(self, rates: Sequence[Tensor] | None = None, loss: Tensor | None = None) -> None:
        """One update from the parameters' `.grad`.

        Where steps are captured, and rates and loss are given, generated code makes it: torch's kernel runs on a few
        blocks there, and takes seven times as long for a small network. The two agree to rounding.

        Args:
            rates: learning rate of each group as a 0-dim tensor on the parameters' device (read
                where the kernel runs); default: the groups' own.
            loss: 0-dim on that device: where it is no finite number, nothing is updated.

        Raises:
            ValueError: naming the parameter whose gradient or state is not laid out as it is.
        """
        if not self.fuses:
            self.optimizer.step()
            return
        skip = None
        with torch.no_grad():
            for i, group in enumerate(self.optimizer.param_groups):
                rate = group["lr"] if rates is None else rates[i]
                for bound in self._bindings(i, [p for p in group["params"] if p.grad is not None]):
                    gradients: list[Any] = [p.grad for p in bound.params]
                    if loss is not None and rates is not None:
                        code = self._code(bound, group, [loss, rate], gradients)
                        if code is not None:
                            code(loss, rate, bound.counts, *bound.flat(gradients))
                            continue
                        if skip is None:
                            skip = 1 - loss.isfinite().float()
                    bound.counts.add_(1.0 if skip is None else 1.0 - skip)
                    self._kernel(
                        bound.params,
                        gradients,
                        *bound.moments,
                        [],
                        bound.steps,
                        lr=rate,
                        beta1=group["betas"][0],
                        beta2=group["betas"][1],
                        weight_decay=group["weight_decay"],
                        eps=group["eps"],
                        amsgrad=False,
                        maximize=False,
                        found_inf=skip,
                    )

    def _code(
        self, bound: Bound, group: dict[str, Any], numbers: list[Tensor], gradients: list[Tensor]
    ) -> Callable[..., Any] | None:
        """Generated code for these parameters; None where there is none: a CPU, no compiler."""
        device = bound.params[0].device
        if not (devices.captures(device) and device.type in devices.COMPILES):
            return None
        beta1, beta2 = map(float, group["betas"])
        settings = beta1, beta2, float(group["weight_decay"]), float(group["eps"])
        if bound.code is None or bound.code[0] != settings:
            decoupled = type(self.optimizer) is torch.optim.AdamW
            example = [*numbers, bound.counts, *bound.flat(gradients)]
            try:
                made = generated_adam(len(bound.params), example, settings, decoupled)
            except UntraceableError:
                made = None
            bound.code = settings, made
        return bound.code[1]

    def _bindings(self, group: int, params: list[Tensor]) -> list[Bound]:
        """One for each dtype among a group's parameters; made anew where parameters or state are others."""
        found = []
        for dtype in dict.fromkeys(p.dtype for p in params):
            alike = [p for p in params if p.dtype == dtype]
            states = [self.optimizer.state[p] for p in alike]
            bound = self._bound.get((group, dtype))
            if bound is None or not bound.holds(alike, states):
                for p, state in zip(alike, states, strict=True):
                    bring(p, state, self._called(p))
                bound = self._bound[group, dtype] = Bound(alike, states)
            bound.check_gradients(self._called)
            found.append(bound)
        return found

    def _called(self, p: Tensor) -> str:
        name = self.name_of(p)
        return f"a parameter of shape {tuple(p.shape)}" if name is None else repr(name)


def _has_more(optimizer: Any) -> bool:
    """Whether a step of an optimizer does more than its class's: by hooks, or a step of a user's own."""
    hooks = (
        optimizer._optimizer_step_pre_hooks,
        optimizer._optimizer_step_post_hooks,
        _global_optimizer_pre_hooks,
        _global_optimizer_post_hooks,
    )
    own = vars(optimizer).get("step")
    while getattr(own, "_wrapped_by_lr_sched", False):  # by torch's schedulers, to count it
        own = getattr(own, "__wrapped__", None)
        own = None if own is type(optimizer).step else own
    return own is not None or any(hooks)
