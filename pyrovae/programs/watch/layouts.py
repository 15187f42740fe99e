"""Layouts of many tensors, compared with what they were in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

TensorGuards: Any = None
try:  # torch's own guards, of some 50 ns a tensor; names with an underscore may go
    from torch._C._dynamo import guards

    TensorGuards = guards.TensorGuards
except (ImportError, AttributeError):  # pragma: no cover
    pass

Layout = tuple[Any, ...]


class Layouts:
    """Dtype, device, shape, strides and `requires_grad` of tensors, as they were.

    Args:
        tensors: looked at now, and at each comparison.
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        # A guard fails where one tensor comes twice.
        self.tensors = tensors = list({id(t): t for t in tensors}.values())
        self._guard: Any = None
        if TensorGuards is not None and tensors:
            self._guard = TensorGuards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None)
        self.kept = list(map(layout, tensors))

    def hold(self) -> bool:
        """Whether all are as they were."""
        if self._guard is not None and self._guard.check(*self.tensors):
            return True
        return list(map(layout, self.tensors)) == self.kept


def layout(tensor: Tensor) -> Layout:
    """Layout of a tensor; whether it is trained comes last."""
    return tensor.dtype, tensor.device, tensor.shape, tensor.stride(), tensor.requires_grad


def say(kept: Layout) -> str:
    """A layout in words."""
    dtype, device, shape, strides, _ = kept
    where = "" if device.type == "cpu" else f" on {device}"
    return f"{tuple(shape)} of {str(dtype).removeprefix('torch.')}{where} with strides {strides}"
