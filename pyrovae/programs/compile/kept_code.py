"""Generated code by what it computes: the same graph for tensors alike is compiled once in a process.

A program is traced anew each time, and its graph is the key. So code is never that of a program which has changed
since: another global, attribute, closure or argument gives another graph, and parameters and data are its inputs.
Nothing of a program is kept alive.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

MOST = 32  # graphs, the latest ones
LARGEST = 2**16  # bytes of a literal in a graph that is compared
_KEPT: OrderedDict[Any, Callable[..., Any]] = OrderedDict()


def kept(
    module: fx.GraphModule, example: Sequence[Tensor], how: Any, make: Callable[[], Callable[..., Any]]
) -> Callable[..., Any]:
    """`make()`, or what it gave for the same graph, for tensors of these shapes, strides, dtypes and devices."""
    key = _key(module, example, how)
    if key is None:
        return make()
    if key not in _KEPT:
        _KEPT[key] = make()
        while len(_KEPT) > MOST:
            _KEPT.popitem(last=False)
    _KEPT.move_to_end(key)
    return _KEPT[key]


def forget() -> None:
    """Drops all code."""
    _KEPT.clear()


def _key(module: fx.GraphModule, example: Sequence[Tensor], how: Any) -> Any:
    literals = []
    for node in module.graph.nodes:
        if node.op not in ("placeholder", "call_function", "get_attr", "output"):
            return None
        if node.op == "get_attr":
            value = getattr(module, str(node.target), None)
            if not isinstance(value, Tensor) or value.numel() * value.element_size() > LARGEST:
                return None
            literals.append(
                (_about(value), value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
            )
    # The text of the code leaves nothing out: operations by overload, arguments as literals.
    return module.code, tuple(literals), tuple(map(_about, example)), _settings(), how


def _about(t: Tensor) -> Any:
    return tuple(t.shape), t.stride(), t.dtype, t.device, t.requires_grad, type(t)


def _settings() -> Any:
    """Settings that generated code depends on beside its graph."""
    return (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
    )
