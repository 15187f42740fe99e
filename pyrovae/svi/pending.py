"""Losses that stay on the device until somebody looks at them."""

from __future__ import annotations

import math
import numbers
import operator
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

RING = 256  # losses on the device that are not read yet


class PendingLoss:
    """A number in nats that is read from its device when it is looked at: by `float`, in print, in arithmetic.

    A real number for Python (`isinstance(loss, numbers.Real)`), but no `float`: what takes floats alone, as `json`
    does, takes `float(loss)`.
    """

    def __init__(self, read: Callable[[], None]) -> None:
        self._read = read
        self.value: float | None = None

    def __float__(self) -> float:
        if self.value is None:
            self._read()
        assert self.value is not None
        return self.value

    def __int__(self) -> int:
        return int(float(self))

    def as_integer_ratio(self) -> tuple[int, int]:
        """The number as a fraction, exactly."""
        return float(self).as_integer_ratio()

    def item(self) -> float:
        """The number, as of a tensor."""
        return float(self)

    def __repr__(self) -> str:
        return repr(float(self))

    def __format__(self, spec: str) -> str:
        return format(float(self), spec)

    def __hash__(self) -> int:
        return hash(float(self))

    def __bool__(self) -> bool:
        return bool(float(self))

    def __round__(self, ndigits: int | None = None) -> Any:
        return round(float(self), ndigits)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        import numpy as np

        return np.asarray(float(self), dtype)


def _binary(operation: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    def forward(self: PendingLoss, other: Any) -> Any:
        return operation(float(self), float(other) if isinstance(other, PendingLoss) else other)

    def backward(self: PendingLoss, other: Any) -> Any:
        return operation(other, float(self))

    return forward, backward


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    _forward, _backward = _binary(getattr(operator, _name))
    setattr(PendingLoss, f"__{_name}__", _forward)
    setattr(PendingLoss, f"__r{_name}__", _backward)
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(PendingLoss, f"__{_name}__", _binary(getattr(operator, _name))[0])
for _name, _function in {
    "neg": operator.neg,
    "pos": operator.pos,
    "abs": operator.abs,
    "trunc": math.trunc,
    "floor": math.floor,
    "ceil": math.ceil,
}.items():
    setattr(PendingLoss, f"__{_name}__", lambda self, f=_function: f(float(self)))
numbers.Real.register(PendingLoss)


class Losses:
    """The last losses of a captured step, read together when one of them is looked at, or their places are full.

    Args:
        found: called after a reading with the losses that are no finite numbers, oldest first.
    """

    def __init__(self, found: Callable[[list[float]], None]) -> None:
        self._found = found
        self._ring: Tensor | None = None
        self._waiting: list[weakref.ref[PendingLoss]] = []

    def add(self, loss: Tensor) -> PendingLoss:
        """Keeps the number that stands in a 0-dim tensor now."""
        if self._ring is None:
            self._ring = torch.empty(RING, dtype=loss.dtype, device=loss.device)
        self._ring[len(self._waiting)].copy_(loss)
        pending = PendingLoss(self.read)
        self._waiting.append(weakref.ref(pending))
        if len(self._waiting) == RING:
            self.read()
        return pending

    def read(self) -> None:
        """Waits for the device, once for all."""
        if self._ring is None or not self._waiting:
            return
        values: list[float] = self._ring[: len(self._waiting)].tolist()
        for reference, value in zip(self._waiting, values, strict=True):
            pending = reference()
            if pending is not None:
                pending.value = value
        self._waiting = []
        bad = [v for v in values if not math.isfinite(v)]
        if bad:
            self._found(bad)
