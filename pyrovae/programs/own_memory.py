"""Parameters that are trained where they are: in memory of their own, not in that of somebody's data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from .arguments.marks import tensors_in


class OwnMemory(Messenger):
    """Lets a `pyro.param` that comes to life in the memory of data start at their values, in memory of its own.

    Pyro takes the tensor itself, which an optimizer then moves. Of other tensors it does so here as well: parameters
    that start at one tensor are one. Those of modules are the modules' own.

    Args:
        *given: the data, in containers too.
        copies: of a store that leaves what all its parameters start at as it is: their starts, each with its copy.
    """

    def __init__(self, *given: Any, copies: dict[Any, tuple[Tensor, Tensor]] | None = None) -> None:
        super().__init__()
        self.given, self.copies = given, copies

    def _pyro_param(self, msg: Any) -> None:
        args = msg["args"]
        if len(args) > 1 and not isinstance(args[1], nn.Parameter):
            msg["args"] = (args[0], _Start(args[1], self.given, self.copies), *args[2:])


class _Start:
    """Start of a parameter, asked for as Pyro asks: where there is none yet."""

    def __init__(self, value: Any, given: Any, copies: dict[Any, tuple[Tensor, Tensor]] | None) -> None:
        self.value, self.given, self.copies = value, given, copies

    def __call__(self) -> Tensor:
        value: Tensor = self.value() if callable(self.value) else self.value
        # One with a history is no leaf, as which Pyro says it.
        if isinstance(value, nn.Parameter) or not value.is_leaf:
            return value
        if self.copies is None:
            return value.detach().clone() if _shares(value, _spans(self.given)) else value
        key = (value.data_ptr(), value.shape, value.stride(), value.dtype)
        found = self.copies.get(key)
        if found is None or not torch.equal(found[1], value):  # not a copy that has been trained since
            # The start is held, so that no other one comes to lie where it was.
            found = self.copies[key] = value, value.detach().clone()
        return found[1]


def move_out(parameters: Iterable[Tensor], given: Any) -> None:
    """Gives parameters that share memory with what is given, in containers too, memory of their own.

    A parameter that is itself among it stays.
    """
    taken = _spans(given)
    if not taken:
        return
    themselves = set(map(id, tensors_in(given, Tensor | np.ndarray)))
    for p in parameters:
        if id(p) not in themselves and _shares(p, taken):
            p.data = p.data.clone()


def _spans(given: Any) -> list[tuple[str, int, int]]:
    """Memory of what is given."""
    return sorted({span for span in map(_span, tensors_in(given, Tensor | np.ndarray)) if span is not None})


def _shares(value: Tensor, taken: list[tuple[str, int, int]]) -> bool:
    span = _span(value)
    if span is None:
        return False
    where, start, end = span
    return any(where == w and start < e and s < end for w, s, e in taken)


def _span(value: Any) -> tuple[str, int, int] | None:
    """Device and the addresses of its memory, whoever holds it; None for a tensor without any."""
    if isinstance(value, np.ndarray):
        while isinstance(value.base, np.ndarray):
            value = value.base
        start = value.__array_interface__["data"][0]
        return "cpu", start, start + value.nbytes
    if value.layout is not torch.strided or value.numel() == 0 or value.device.type == "meta":
        return None
    memory = value.untyped_storage()
    return str(value.device), memory.data_ptr(), memory.data_ptr() + memory.nbytes()
