"""Networks that take one batch dim: the samples' dims are folded into it for the call, and unfolded after."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.utils.rnn import PackedSequence

from ..layers import around
from ..modes import untraced

Axis = int | None


@dataclass(frozen=True)
class Shape:
    """Shape of a tensor of a call without samples, and its one dim along the data (None: it has none)."""

    sizes: tuple[int, ...]
    axis: Axis

    def lead(self, value: Tensor) -> tuple[int, ...] | None:
        """Sizes of the dims left of those that the network knows; None where it is another tensor."""
        extra = value.dim() - len(self.sizes)
        if extra < 0:
            return None
        core = value.shape[extra:]
        same = all(a == b for i, (a, b) in enumerate(zip(core, self.sizes, strict=True)) if i != self.axis)
        return tuple(value.shape[:extra]) if same else None


@dataclass(frozen=True)
class Call:
    """Shapes of the tensors of a call of a module, in and out."""

    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]


@dataclass
class _Open:
    has_sites: bool = False
    found: list[tuple[nn.Module, Any, Any]] = field(default_factory=list)


class _Sites(Messenger):
    """Marks the modules in which a program draws: they are part of the program, and no networks."""

    def __init__(self, stack: list[_Open]) -> None:
        super().__init__()
        self.stack = stack

    def _process_message(self, msg: Any) -> None:
        if msg["type"] == "sample":
            for frame in self.stack:
                frame.has_sites = True


@contextmanager
def _recorded() -> Iterator[list[tuple[nn.Module, Any, Any]]]:
    """Yields the outermost calls of modules that draw nothing: `(module, tensors in, tensors out)`."""
    stack = [_Open()]

    def before(module: nn.Module, inputs: Any) -> None:
        stack.append(_Open())

    def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        done = stack.pop()
        own = [(module, _tensors((args, kwargs)), _tensors(output))]
        stack[-1].found += done.found if done.has_sites else own

    handles = [
        register_module_forward_pre_hook(untraced(before)),
        register_module_forward_hook(untraced(after), with_kwargs=True),
    ]
    try:
        with _Sites(stack):
            yield stack[0].found
    finally:
        for handle in handles:
            handle.remove()


def calls_of(run: Callable[[int], Any], few: tuple[int, int]) -> dict[nn.Module, list[Call]]:
    """The calls of each network, from two runs on other numbers of data.

    Args:
        run: runs the program without samples on so many data.
        few: those two numbers.
    """
    seen = []
    for n in few:
        with _recorded() as found:
            run(n)
        seen.append([(m, [t.shape for t in i], [t.shape for t in o]) for m, i, o in found])
    calls: dict[nn.Module, list[Call]] = {}
    if [m for m, *_ in seen[0]] != [m for m, *_ in seen[1]]:
        return {}
    for (module, *here), (_, *there) in zip(*seen, strict=True):
        shapes = [_shapes(a, b, few) for a, b in zip(here, there, strict=True)]
        known = [s for s in shapes if s is not None]
        if len(known) == len(shapes):
            call = Call(*known)
            calls.setdefault(module, [])
            if call not in calls[module]:
                calls[module].append(call)
    return calls


def folded(fn: Callable[..., Any], calls: dict[nn.Module, list[Call]]) -> Callable[..., Any]:
    """`fn`, whose networks see the samples' dims as part of their batch."""

    def run(*args: Any, **kwargs: Any) -> Any:
        handles = []
        for module, known in calls.items():
            leads: list[Any] = []
            before, after = _fold(known, leads), _unfold(leads)
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after))
        try:
            return fn(*args, **kwargs)
        finally:
            for handle in handles:
                handle.remove()

    return around(fn, run)


def _fold(known: list[Call], leads: list[Any]) -> Callable[..., Any]:
    def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
        tensors = _tensors((args, kwargs))
        fits = [
            (call, found)
            for call in known
            if len(call.inputs) == len(tensors)
            and None not in (found := [s.lead(t) for s, t in zip(call.inputs, tensors, strict=True)])
        ]
        leads.append(None)
        if len(fits) != 1 or not any(fits[0][1]):
            return None
        call, found = fits[0]
        if any(lead and shape.axis is None for shape, lead in zip(call.inputs, found, strict=True)):
            return None
        lead = torch.broadcast_shapes(*found)
        new = iter([_into_batch(t, s, lead) for t, s in zip(tensors, call.inputs, strict=True)])
        leads[-1] = (call, lead)
        return _replaced(args, new), _replaced(kwargs, new)

    return before


def _unfold(leads: list[Any]) -> Callable[..., Any]:
    def after(module: nn.Module, args: Any, output: Any) -> Any:
        kept = leads.pop()
        if kept is None:
            return None
        call, lead = kept
        tensors = _tensors(output)
        if len(tensors) != len(call.outputs):
            return None
        return _replaced(
            output, iter([_out_of_batch(t, s, lead) for t, s in zip(tensors, call.outputs, strict=True)])
        )

    return after


def _into_batch(value: Tensor, shape: Shape, lead: tuple[int, ...]) -> Tensor:
    if shape.axis is None:
        return value
    core = value.shape[value.dim() - len(shape.sizes) :]
    wide = value.expand(*lead, *core)
    moved = wide.movedim(tuple(range(len(lead))), tuple(range(shape.axis, shape.axis + len(lead))))
    return moved.flatten(shape.axis, shape.axis + len(lead))


def _out_of_batch(value: Tensor, shape: Shape, lead: tuple[int, ...]) -> Tensor:
    if shape.axis is None:
        return value
    rows = value.shape[shape.axis] // math.prod(lead)
    wide = value.unflatten(shape.axis, (*lead, rows))
    return wide.movedim(tuple(range(shape.axis, shape.axis + len(lead))), tuple(range(len(lead))))


def _shapes(here: list[Any], there: list[Any], few: tuple[int, int]) -> tuple[Shape, ...] | None:
    """Shapes with their data dims; None where that is not one dim."""
    if len(here) != len(there):
        return None
    found = []
    for a, b in zip(here, there, strict=True):
        moved = [i for i, (u, v) in enumerate(zip(a, b, strict=False)) if u != v]
        if len(a) != len(b) or len(moved) > 1 or any((a[i], b[i]) != few for i in moved):
            return None
        found.append(Shape(tuple(a), moved[0] if moved else None))
    return tuple(found)


def _tensors(value: Any) -> list[Tensor]:
    found: list[Tensor] = []

    def take(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    _walk(value, take)
    return found


def _replaced(value: Any, new: Iterator[Tensor]) -> Any:
    return _walk(value, lambda v: next(new))


def _walk(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, PackedSequence):
        return value
    if isinstance(value, tuple):
        parts = [_walk(v, change) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [_walk(v, change) for v in value]
    if isinstance(value, dict):
        return {k: _walk(v, change) for k, v in value.items()}
    return value
