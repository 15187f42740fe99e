"""Parameters that are trained where they are: in memory of their own, not in that of somebody's data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from .arguments.marks import Marked


class OwnMemory(Messenger):
    """Lets a `pyro.param` that comes to life start at the value of its tensor, and not in its memory.

    Pyro takes the tensor itself, which an optimizer then moves: data, where a parameter starts at them. Those of
    modules are the modules' own.
    """

    def _pyro_param(self, msg: Any) -> None:
        args = msg["args"]
        if len(args) > 1 and not isinstance(args[1], nn.Parameter):
            msg["args"] = (args[0], _Start(args[1]), *args[2:])


class _Start:
    """What a parameter starts at, asked for as Pyro asks: where there is none yet."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __call__(self) -> Tensor:
        value: Tensor = self.value() if callable(self.value) else self.value
        # One with a history is no leaf, as which Pyro says it.
        own = isinstance(value, nn.Parameter) or not value.is_leaf
        return value if own else value.detach().clone()


def move_out(parameters: Iterable[Tensor], given: Any) -> None:
    """Gives parameters that share memory with what is given, in containers too, memory of their own.

    A parameter that is itself among it stays.
    """
    arrays = list(_arrays_in(given))
    taken = sorted({span for span in map(_span, arrays) if span is not None})
    if not taken:
        return
    themselves = set(map(id, arrays))
    for p in parameters:
        span = _span(p)
        if span is None or id(p) in themselves:
            continue
        where, start, end = span
        if any(where == w and start < e and s < end for w, s, e in taken):
            p.data = p.data.clone()


def _arrays_in(value: Any) -> Iterator[Any]:
    """Tensors and arrays of NumPy in it."""
    if isinstance(value, Tensor | np.ndarray):
        yield value
    elif isinstance(value, Marked):
        yield from _arrays_in(value.value)
    elif isinstance(value, PackedSequence):
        yield value.data
    elif isinstance(value, tuple | list):
        for v in value:
            yield from _arrays_in(v)
    elif isinstance(value, dict):
        for v in value.values():
            yield from _arrays_in(v)


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
