"""Settings around a program that it depends on: torch's, Pyro's handlers, hooks of all modules."""

from __future__ import annotations

from typing import Any

import torch
from pyro.poutine import runtime
from torch import nn

_GLOBAL_HOOKS = [
    getattr(nn.modules.module, f"_global_{kind}_hooks")
    for kind in ("forward", "forward_pre", "backward", "backward_pre")
]


def handlers() -> int:
    """Number of Pyro's handlers that are active."""
    return len(runtime._PYRO_STACK)


def ambient() -> tuple[Any, ...]:
    """Settings of torch that a program depends on."""
    autocast = torch._C._is_any_autocast_enabled()
    return torch.get_default_dtype(), torch.is_grad_enabled(), autocast, handlers(), hooks_of_all_modules()


def hooks_of_all_modules() -> bool:
    """Whether a hook of somebody else's stands around the calls of all modules: `module_mode` has one of its own."""
    return any(map(len, _GLOBAL_HOOKS)) and any(
        not str(getattr(hook, "__module__", "")).startswith("pyrovae.")
        for hooks in _GLOBAL_HOOKS
        for hook in hooks.values()
    )
