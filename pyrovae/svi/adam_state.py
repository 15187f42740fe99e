"""State of Adam and AdamW as one kernel over all parameters reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import getitem, is_
from typing import Any

import torch
from torch import Tensor

from ..devices import as_tensor
from ..programs.compile.strides import strided_like

_MOMENTS = ("exp_avg", "exp_avg_sq")
_STATE = ("step", *_MOMENTS)


class Kept:
    """An optimizer's parameters and tensors of state, which are asked for at each step, as they were."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._params = self._now()
        self._states = list(map(optimizer.state.get, self._params))
        slots = [(s, key) for s in self._states if s is not None for key in s]
        self._dicts, self._keys = [s for s, _ in slots], [key for _, key in slots]
        self._values: list[Any] = list(map(getitem, self._dicts, self._keys))
        self._sizes = [len(s) for s in self._states if s is not None]
        state: list[Tensor] = [v for v in self._values if isinstance(v, Tensor)]
        self.tensors: list[Tensor] = [*self._params, *state]

    def _now(self) -> list[Tensor]:
        return [p for g in self._optimizer.param_groups for p in g["params"]]

    def stands(self) -> bool:
        """Whether all are the same objects still."""
        now = self._now()
        states = list(map(self._optimizer.state.get, now))
        return (
            len(now) == len(self._params)
            and all(map(is_, now, self._params))
            and all(map(is_, states, self._states))
            and [len(s) for s in states if s is not None] == self._sizes
            and all(map(is_, map(dict.get, self._dicts, self._keys), self._values))
        )


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
        step = as_tensor(step, dtype=torch.float32)
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


class Bound:
    """Parameters of one dtype and device with their state, checked.

    Attributes:
        counts: steps of each, `[P]`; `steps` are views of it, so that one addition serves all.
        code: generated for them, once it is asked for, with the settings that it is for.
    """

    code: tuple[Any, Callable[..., Any] | None] | None = None

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

    def flat(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Parameters as they are now, gradients, and both moments, in one list."""
        return [*(p.detach() for p in self.params), *gradients, *self.moments[0], *self.moments[1]]

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
