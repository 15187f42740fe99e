"""One fused kernel for the update of all parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_KERNELS: dict[type, Any] = {torch.optim.Adam: torch._fused_adam_, torch.optim.AdamW: torch._fused_adamw_}


class FusedStep:
    """`optimizer.step()` without its bookkeeping, for Adam and AdamW; its own step for all others.

    The state is the optimizer's own (`optimizer.state`), so that it can be saved, loaded and
    continued by the optimizer itself.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self._kernel: Any = _KERNELS.get(type(optimizer))
        self._counts: dict[int, tuple[Tensor, list[Tensor]]] = {}

    def _plain(self, group: dict[str, Any]) -> bool:
        flags = ("amsgrad", "maximize", "capturable", "differentiable")
        real = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in group["params"])
        decoupled = (
            bool(group.get("decoupled_weight_decay", False)) and type(self.optimizer) is torch.optim.Adam
        )
        return (
            real and not decoupled and not any(group.get(f) for f in flags) and isinstance(group["lr"], float)
        )

    @property
    def fuses(self) -> bool:
        """Whether the update is the fused kernel's, and not the optimizer's own."""
        return self._kernel is not None and all(self._plain(g) for g in self.optimizer.param_groups)

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
        """
        if not self.fuses:
            self.optimizer.step()
            return
        with torch.no_grad():
            for i, group in enumerate(self.optimizer.param_groups):
                params = [p for p in group["params"] if p.grad is not None]
                if not params:
                    continue
                state = [self._state(p) for p in params]
                steps = self._counted(i, state, skip)
                self._kernel(
                    params,
                    [p.grad for p in params],
                    [s["exp_avg"] for s in state],
                    [s["exp_avg_sq"] for s in state],
                    [],
                    steps,
                    lr=group["lr"] if rates is None else rates[i],
                    beta1=group["betas"][0],
                    beta2=group["betas"][1],
                    weight_decay=group["weight_decay"],
                    eps=group["eps"],
                    amsgrad=False,
                    maximize=False,
                    found_inf=skip,
                )

    def _counted(self, group: int, state: list[dict[str, Any]], skip: Tensor | None) -> list[Tensor]:
        """Steps of the parameters, one more: views of one tensor, which is one addition for all."""
        counts, views = self._counts.get(group, (None, []))
        known = len(views) == len(state) and all(s["step"] is v for s, v in zip(state, views, strict=True))
        if counts is None or not known:  # at first, and after a state was loaded
            counts = torch.stack([s["step"] for s in state])
            views = list(counts.unbind())
            self._counts[group] = counts, views
            for s, view in zip(state, views, strict=True):
                s["step"] = view
        counts.add_(1.0 if skip is None else 1.0 - skip)
        return views

    def _state(self, p: Tensor) -> dict[str, Any]:
        state = self.optimizer.state[p]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=p.device)
            state["exp_avg"] = torch.zeros_like(p, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(p, memory_format=torch.preserve_format)
        return state
