"""Data of another precision than a program's parameters."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.contrib.easyguide import EasyGuide
from pyro.infer.autoguide import AutoGuide
from pyro.poutine.guide import GuideMessenger
from torch import Tensor, nn

from ..arguments.marks import Marked, change
from ..layers import layers
from ..modes import module_mode
from ..parameters import scratch
from ..plates import Arguments, alone

_MISMATCH = ("dtype", "scalar type")  # what torch says of it


def fitting(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    context: tuple[Any, ...],
    plate: str,
) -> torch.dtype | None:
    """The dtype that data are to be cast to: that of the program's modules, where it does not run on the data's own.

    None where it runs, or fails for another reason. What numpy makes is float64, and most networks are float32.
    """
    if not x.is_floating_point() or x.dtype == torch.get_default_dtype():
        return None
    if isinstance(layers(guide)[-1], AutoGuide | EasyGuide | GuideMessenger):
        guide = _nothing  # a run on few data would set it up on these
    arguments = Arguments(x, context, plate, "sliced")
    rows = torch.arange(min(2, len(x)), device=x.device)
    with torch.no_grad(), pyro.validation_enabled(False), scratch(model, guide):
        for args in (lambda: arguments.slice(rows), arguments.whole):
            with module_mode(model, guide, training=None) as modules:
                try:
                    alone(model, guide, args(), plate)
                    return None
                except RuntimeError as error:
                    if not any(word in str(error) for word in _MISMATCH):
                        continue
                except Exception:
                    continue
            found = _dtype_of(modules)
            return found if found is not None and found != x.dtype else None
    return None


def cast(value: Any, dtype: torch.dtype) -> Any:
    """Floating tensors in `value`, marked or not, as `dtype`; all else as it is."""

    def leaf(v: Any) -> Any:
        if isinstance(v, Marked):
            return Marked(cast(v.value, dtype), v.per_datum)
        return v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v

    return change(value, leaf)


def say(x: Tensor, dtype: torch.dtype) -> None:
    """Says once that data are cast."""
    warnings.warn(
        f"the data are {x.dtype} and the program's parameters {dtype}: the data are cast to {dtype}; try "
        f"x.to({dtype}), or modules in {x.dtype}",
        stacklevel=4,
    )


def _nothing(*args: Any) -> None:
    pass


def _dtype_of(modules: list[nn.Module]) -> torch.dtype | None:
    for module in modules:
        for parameter in module.parameters():
            if parameter.is_floating_point():
                return parameter.dtype
    return None
