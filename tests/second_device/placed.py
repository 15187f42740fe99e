"""Programs of some folder make their tensors on the second device, as if their authors had named it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from . import NAME

ROOT = Path(__file__).parents[2]
OURS = tuple(str(ROOT / name) + "/" for name in ("pyrovae", "models", "inference"))
TESTS = str(ROOT / "tests") + "/"
MAKERS = {
    getattr(torch, name)
    for name in (
        *(
            "tensor",
            "zeros",
            "ones",
            "randn",
            "rand",
            "arange",
            "empty",
            "full",
            "eye",
            "linspace",
            "logspace",
        ),
        *("randint", "randperm", "as_tensor", "tril_indices"),
    )
}


class Placed(TorchFunctionMode):
    """In the body, a tensor made by a line of tests is on the second device, and so is what a module makes of itself.

    What the library makes stays where the library says: that is what is asked.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in MAKERS or kwargs.get("device") is not None or not _of_a_program():
            return func(*args, **kwargs)
        if func is torch.as_tensor and isinstance(args[0], Tensor):
            return func(*args, **kwargs)
        if kwargs.get("generator") is None:
            return func(*args, **{**kwargs, "device": NAME})
        out = func(*args, **kwargs).to(NAME)  # of a generator of the CPU
        return out.detach().requires_grad_() if kwargs.get("requires_grad") else out


def _of_a_program() -> bool:
    """Whether the line that asks is one of the tests, or of a module as it is made."""
    frame = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(TESTS) and not code.co_name.startswith("__torch_"):
            return True
        if code.co_filename.startswith(OURS) and not code.co_name.startswith("__torch_"):
            return code.co_name == "__init__" and isinstance(frame.f_locals.get("self"), nn.Module)
        frame = frame.f_back
    return False


def imported_there(name: str) -> ModuleType:
    """A module of tests once more, its tensors on the second device."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.loader is not None
    again = importlib.util.module_from_spec(spec)
    with Placed():
        spec.loader.exec_module(again)
    return again
