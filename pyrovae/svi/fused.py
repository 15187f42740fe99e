"""One fused kernel for the update of all parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import is_
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from .. import devices
from ..programs.compile.strides import is_dense, strided_like

_KERNELS: dict[type, Any] = {torch.optim.Adam: torch._fused_adam_, torch.optim.AdamW: torch._fused_adamw_}
_MOMENTS = ("exp_avg", "exp_avg_sq")
_STATE = ("step", *_MOMENTS)
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
        self._bound: dict[tuple[int, torch.dtype], _Bound] = {}

    def _plain(self, group: dict[str, Any]) -> bool:
        params = group["params"]
        real = all(p.is_floating_point() and p.device.type in devices.FUSES and is_dense(p) for p in params)
        decoupled = (
            bool(group.get("decoupled_weight_decay", False)) and type(self.optimizer) is torch.optim.Adam
        )
        return (
            real
            and len({p.device for p in params}) <= 1
            and not decoupled
            and not any(group.get(f) for f in _FLAGS)
            and isinstance(group["lr"], float)
        )

    @property
    def fuses(self) -> bool:
        """Whether the update is the fused kernel's, and not the optimizer's own."""
        return (
            self._kernel is not None
            and not _has_more(self.optimizer)
            and all(self._plain(g) for g in self.optimizer.param_groups)
        )

    @property
    def settings(self) -> list[tuple[Any, ...]]:
        """Settings that a captured update keeps: parameters and numbers of each group, its learning rate apart."""
        return [
            (len(g["params"]), g.get("betas"), g.get("weight_decay"), g.get("eps"))
            for g in self.optimizer.param_groups
        ]

    def tensors(self) -> list[Tensor]:
        """Parameters and state, as far as there is one."""
        params = [p for g in self.optimizer.param_groups for p in g["params"]]
        kept = [self.optimizer.state[p] for p in params if p in self.optimizer.state]
        return params + [v for s in kept for v in s.values() if isinstance(v, Tensor)]

    def __call__(self, rates: Sequence[Tensor] | None = None, skip: Tensor | None = None) -> None:
        """One update from the parameters' `.grad`.

        Args:
            rates: learning rate of each group as a 0-dim tensor on the parameters' device (read
                where the kernel runs); default: the groups' own.
            skip: 0-dim float on that device: where it is 1, nothing is updated.

        Raises:
            ValueError: naming the parameter whose gradient or state is not laid out as it is.
        """
        if not self.fuses:
            self.optimizer.step()
            return
        with torch.no_grad():
            for i, group in enumerate(self.optimizer.param_groups):
                rate = group["lr"] if rates is None else rates[i]
                for bound in self._bindings(i, [p for p in group["params"] if p.grad is not None]):
                    bound.counts.add_(1.0 if skip is None else 1.0 - skip)
                    self._kernel(
                        bound.params,
                        [p.grad for p in bound.params],
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

    def _bindings(self, group: int, params: list[Tensor]) -> list[_Bound]:
        """One for each dtype among a group's parameters; made anew where parameters or state are others."""
        found = []
        for dtype in dict.fromkeys(p.dtype for p in params):
            alike = [p for p in params if p.dtype == dtype]
            states = [self.optimizer.state[p] for p in alike]
            bound = self._bound.get((group, dtype))
            if bound is None or not bound.holds(alike, states):
                for p, state in zip(alike, states, strict=True):
                    bring(p, state, self._called(p))
                bound = self._bound[group, dtype] = _Bound(alike, states)
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


def bring(p: Tensor, state: dict[str, Any], name: str = "a parameter") -> None:
    """Puts a parameter's state of Adam, made by torch or not there yet, where the fused kernel reads it.

    Steps are counted on the parameter's device in float32, by torch's eager steps (and after loading) on the CPU;
    moments have the parameter's device and strides, which files do not keep.

    Raises:
        ValueError: for moments of another shape or dtype.
    """
    if not state:
        state["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
        for key in _MOMENTS:
            state[key] = torch.zeros_like(p, memory_format=torch.preserve_format)
    step = state["step"]
    if not isinstance(step, Tensor) or step.device != p.device or step.dtype != torch.float32:
        step = torch.as_tensor(step, dtype=torch.float32)
        state["step"] = step.to(p.device)
    for key in _MOMENTS:
        moment = state[key]
        if moment.shape != p.shape or moment.dtype != p.dtype:
            raise ValueError(
                f"expected {key} of {name} to be {_text(p)}, got {_text(moment)}; try an optimizer made for these "
                "parameters"
            )
        if moment.device != p.device or moment.stride() != p.stride():
            state[key] = strided_like(moment.to(p.device), p)


def _text(t: Tensor) -> str:
    return f"{tuple(t.shape)} of {str(t.dtype).removeprefix('torch.')}"


class _Bound:
    """Parameters of one dtype and device with their state, checked.

    Attributes:
        counts: steps of each, `[P]`; `steps` are views of it, so that one addition serves all.
    """

    def __init__(self, params: list[Tensor], states: list[dict[str, Any]]) -> None:
        self.params = params
        self.moments = [[s[key] for s in states] for key in _MOMENTS]
        self.counts = torch.stack([s["step"] for s in states])
        self.steps = list(self.counts.unbind())
        for state, view in zip(states, self.steps, strict=True):
            state["step"] = view
        self._strides = [p.stride() for p in params]
        self._devices = [p.device for p in params]

    def holds(self, params: list[Tensor], states: list[dict[str, Any]]) -> bool:
        """Whether parameters and state are those that were bound."""
        if len(params) != len(self.params) or not all(map(is_, params, self.params)):
            return False
        kept = (self.steps, *self.moments)
        return (
            all(
                s.get(k) is t
                for k, ts in zip(_STATE, kept, strict=True)
                for s, t in zip(states, ts, strict=True)
            )
            and [p.stride() for p in params] == self._strides
            and [p.device for p in params] == self._devices
        )

    def check_gradients(self, called: Callable[[Tensor], str]) -> None:
        """Refuses a gradient that the kernel would read in another order; device and dtype are torch's to hold."""
        gradients: list[Any] = [p.grad for p in self.params]
        if all(g.layout is torch.strided for g in gradients) and (
            [g.stride() for g in gradients] == self._strides
        ):
            return
        for p, g in zip(self.params, gradients, strict=True):
            if g.layout is not torch.strided:
                raise ValueError(
                    f"expected a dense gradient of {called(p)}, got {g.layout}; try sparse=False"
                )
            if g.stride() != p.stride():
                raise ValueError(
                    f"expected the gradient of {called(p)} with its parameter's strides {p.stride()}, got "
                    f"{g.stride()}, which the fused update would read in another order; try p.grad.copy_(new) in place "
                    "of p.grad = new"
                )
