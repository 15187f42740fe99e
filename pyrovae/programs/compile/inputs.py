"""How a program's arguments divide into tensors, numbers and all else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..watch.trust import PLAIN

Lift = Literal["numbers", "floats", "nothing"]
# Whole numbers in a tensor of an argument that may be part of a graph.
HELD = 4096
# Whole numbers that are inputs.
LARGEST = 2**31


def signature(args: Sequence[Any]) -> tuple[Any, ...]:
    """Key of a graph: shapes, dtypes and devices of tensors, values of all else; compared by `==`."""
    return tuple(_about(a, "nothing") for a in args)


class Value:
    """A plain value or an object, for a comparison that is always a bool."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value.copy() if isinstance(value, np.ndarray) else value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Value) or type(self.value) is not type(other.value):
            return False
        ours, theirs = self.value, other.value
        if isinstance(ours, np.ndarray):
            return ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
        if ours is theirs:
            return True
        try:
            return bool(ours == theirs)
        except Exception:  # whatever a user's object says
            return False

    def __hash__(self) -> int:
        return hash(type(self.value))

    def __repr__(self) -> str:
        return repr(self.value)


class Held:
    """Whole numbers in a tensor (lengths, sizes) that are part of a graph; equal where all numbers are."""

    __slots__ = ("numbers", "value")

    def __init__(self, value: Tensor) -> None:
        self.value = value.detach().clone()
        self.numbers = value.tolist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and self.is_of(other.value)

    def __hash__(self) -> int:
        return hash(self.value.shape)

    def is_of(self, value: Any) -> bool:
        """Whether a tensor has these numbers."""
        ours = self.value
        if not _is_tensor(value) or value.dtype != ours.dtype or value.device != ours.device:
            return False
        return torch.equal(value, ours)


class Inputs:
    """Arguments and keyword arguments of a program as a flat list of tensors, and what stays fixed beside them.

    Args:
        args, kwargs: arguments of the shapes to be compiled for.
        lift: which plain numbers vary as 0-dim tensors; the others are part of the graph.
        device: of those.
        hold: whole numbers in small tensors are part of the graph, too.

    Attributes:
        key: of the arguments; equal for arguments that one graph serves.
    """

    def __init__(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        lift: Lift = "nothing",
        device: torch.device | None = None,
        hold: bool = False,
    ) -> None:
        self.lift, self.device, self.hold = lift, device, hold
        self.key = self.key_of(args, kwargs)
        self._keyed = bool(kwargs)
        self.plain = not kwargs and not hold and all(_is_tensor(a) for a in args)
        self._places: list[Tensor] | None = None

    def key_of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        """Structure; shape, dtype and device of tensors; kind of lifted numbers; values of all else."""
        given = (*args, dict(kwargs)) if kwargs else args
        return tuple(_about(a, self.lift, self.hold) for a in given)

    def fits(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether the graph serves these arguments."""
        given = (*args, kwargs) if kwargs else args
        alike = len(given) == len(self.key) and bool(kwargs) == self._keyed
        return alike and all(map(_fits, self.key, given))

    def tensors(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
        """The graph's inputs, contiguous; numbers among them in tensors of their own."""
        if self.plain:
            return [a if a.is_contiguous() else a.contiguous() for a in args]
        flat: list[tuple[Any, Any]] = []
        for about, value in zip(self.key, (*args, kwargs) if kwargs else args, strict=True):
            _collect(about, value, flat)
        if self._places is None:
            kinds = [about for about, value in flat if not isinstance(value, Tensor)]
            dtypes = [torch.float64 if kind is float else torch.int64 for kind in kinds]
            self._places = [torch.empty((), dtype=d, device=self.device) for d in dtypes]
        free = iter(self._places)
        return [v.contiguous() if isinstance(v, Tensor) else next(free).fill_(v) for _, v in flat]

    def lifted(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[int]:
        """Places among the graph's inputs of those that stand for numbers."""
        flat: list[tuple[Any, Any]] = []
        for about, value in zip(self.key, (*args, kwargs) if kwargs else args, strict=True):
            _collect(about, value, flat)
        return [i for i, (_, value) in enumerate(flat) if not isinstance(value, Tensor)]

    def filled(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], tensors: Sequence[Tensor]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with these tensors in the places of their own and of lifted numbers."""
        rest = iter(tensors)
        out = [_fill(k, v, rest) for k, v in zip(self.key, (*args, kwargs) if kwargs else args, strict=True)]
        return (tuple(out[:-1]), out[-1]) if kwargs else (tuple(out), {})


def flat(values: Any) -> Iterator[Any]:
    """Yields what is in tuples, lists and dicts, one after the other."""
    for value in values.values() if type(values) is dict else values:
        if type(value) is dict or _is_row(type(value)):
            yield from flat(value)
        else:
            yield value


def objects_in(values: Any) -> list[Any]:
    """Objects among arguments: neither tensors, nor plain values, nor arrays."""
    return [v for v in flat(values) if not isinstance(v, (Tensor, np.ndarray, *PLAIN))]


def holdable(value: Any) -> bool:
    """Whether a value is a tensor of few whole numbers."""
    whole = _is_tensor(value) and not (value.is_floating_point() or value.is_complex())
    return whole and value.numel() <= HELD


def _is_row(kind: type) -> bool:
    return kind is tuple or kind is list or (issubclass(kind, tuple) and hasattr(kind, "_make"))


def _is_tensor(value: Any) -> bool:
    return type(value) is Tensor or type(value) is nn.Parameter


def _about(value: Any, lift: Lift, hold: bool = False) -> Any:
    kind = type(value)
    if hold and holdable(value):
        return Held(value)
    if kind is Tensor or kind is nn.Parameter:
        return value.shape, value.dtype, value.device, value.requires_grad
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.device, kind
    if _is_row(kind):
        return kind, *(_about(v, lift, hold) for v in value)
    if kind is dict:
        return kind, tuple(value), *(_about(v, lift, hold) for v in value.values())
    if issubclass(kind, np.floating | np.integer) and lift != "nothing":
        kind = float if issubclass(kind, np.floating) else int
    small = kind is int and -LARGEST < value < LARGEST
    lifted = (kind is float and lift != "nothing") or (small and lift == "numbers")
    return kind if lifted else Value(value)


def _fits(about: Any, value: Any) -> bool:
    kind = type(value)
    if type(about) is Held:
        return about.is_of(value)
    if about is float:
        return (
            issubclass(kind, float | int | np.floating) and kind is not bool
        )  # min(1, step / 10) ends as an int
    if about is int:
        return issubclass(kind, int | np.integer) and kind is not bool and -LARGEST < value < LARGEST
    if _is_row(kind):
        parts = about[1:] if isinstance(about, tuple) and about[0] is kind else None
        return parts is not None and len(parts) == len(value) and all(map(_fits, parts, value))
    if kind is dict:
        known = isinstance(about, tuple) and about[0] is dict and about[1] == tuple(value)
        return known and all(map(_fits, about[2:], value.values()))
    return bool(about == _about(value, "nothing"))


def _parts(about: Any, value: Any) -> zip[tuple[Any, Any]] | None:
    kind = type(value)
    if _is_row(kind):
        return zip(about[1:], value, strict=True)
    return zip(about[2:], value.values(), strict=True) if kind is dict else None


def _collect(about: Any, value: Any, out: list[tuple[Any, Any]]) -> None:
    parts = _parts(about, value)
    if parts is not None:
        for part in parts:
            _collect(*part, out)
    elif type(about) is not Held and (isinstance(value, Tensor) or about is float or about is int):
        out.append((about, value))


def _fill(about: Any, value: Any, rest: Any) -> Any:
    parts = _parts(about, value)
    if parts is not None:
        inner = [_fill(*part, rest) for part in parts]
        if type(value) is dict:
            return dict(zip(value, inner, strict=True))
        return value._make(inner) if hasattr(value, "_make") else type(value)(inner)
    if type(about) is Held:
        # A literal, whose numbers the tracer knows.
        return torch.tensor(about.numbers, dtype=about.value.dtype, device=about.value.device)
    return next(rest) if isinstance(value, Tensor) or about is float or about is int else value
