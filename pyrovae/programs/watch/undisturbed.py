"""Runs a program for a look at it, and leaves all as it was: tensors, generators, Python's state."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.distributions import Distribution
from torch.fx.experimental import proxy_tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from ...devices import noise_state, put_back, started
from .reading import place_here

Flat = Callable[[list[Tensor], list[Tensor]], Sequence[Tensor]]


class UntraceableError(Exception):
    """Why a program cannot be one graph; it runs eagerly instead."""


class NumbersTaken(TorchFunctionMode):
    """Tells of tensors whose numbers are taken into Python or NumPy."""

    def __init__(self, note: Callable[[Any], None]) -> None:
        super().__init__()
        self._note = note

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _TAKES:
            self._note(args[0])
        return func(*args, **(kwargs or {}))


_TAKES = {Tensor.item, Tensor.tolist, Tensor.numpy, Tensor.__array__, Tensor.__bool__, Tensor.__float__}
_TAKES |= {Tensor.__int__, Tensor.__index__, Tensor.__complex__, Tensor.__contains__, Tensor.__format__}
_TAKES |= {Tensor.__repr__, Tensor.is_nonzero, torch.is_nonzero}


class NoWrites(TorchDispatchMode):
    """Stops before a tensor that is not the tracer's is written to: the write would be a real one.

    Attributes:
        places: of operations that draw random numbers, the line of a user's that draws first.
        read: tensors that are not the tracer's, whose numbers were taken into Python.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[Any, str] = {}
        self._read: dict[int, Tensor] = {}

    @property
    def read(self) -> list[Tensor]:  # noqa: D102
        return list(self._read.values())

    def guard(self, fn: Flat) -> Flat:
        """`fn`, run in this mode."""

        def guarded(leaves: list[Tensor], inputs: list[Tensor]) -> Sequence[Tensor]:
            with NumbersTaken(self._note), self:
                return fn(leaves, inputs)

        return guarded

    def _note(self, tensor: Any) -> None:
        if isinstance(tensor, Tensor) and not isinstance(tensor, FakeTensor):
            self._read[id(tensor)] = tensor

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        schema = getattr(func, "_schema", None)
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.places.setdefault(func, place_here())
        if schema is not None and schema.is_mutable:
            for i, given in enumerate(schema.arguments):
                value = args[i] if i < len(args) else kwargs.get(given.name)
                written = given.alias_info is not None and given.alias_info.is_write
                if written and isinstance(value, Tensor) and not isinstance(value, FakeTensor):
                    raise UntraceableError(f"it writes in place ({func}) to a tensor from outside")
        out = func(*args, **kwargs)
        if isinstance(out, torch.SymInt):
            raise UntraceableError("its course depends on values that it computes")
        if isinstance(out, Tensor) and not all(type(n) is int for n in out.shape):
            raise UntraceableError("the shape of what it computes depends on values (a mask as an index)")
        return out


@contextmanager
def known_literals(numel: int) -> Iterator[None]:
    """Lets the tracer know numbers in tensors of up to `numel` elements that a program makes of literals.

    A torch without that setting knows single numbers alone: programs whose course depends on more run eagerly.
    """
    former = getattr(proxy_tensor, "CONSTANT_NUMEL_LIMIT", None)
    if former is None:
        yield
        return
    proxy_tensor.CONSTANT_NUMEL_LIMIT = numel
    try:
        yield
    finally:
        proxy_tensor.CONSTANT_NUMEL_LIMIT = former


@contextmanager
def undisturbed() -> Iterator[NoWrites]:
    """Yields what makes of a function one that writes to no real tensor; after, random numbers go on as before.

    Distributions do not check values meanwhile: those made before keep their own setting, which
    Pyro's switch does not reach, and their checks would read numbers.

    Raises:
        UntraceableError: on leaving, where Python's or NumPy's generator had moved on.
    """
    state, numpy_state = random.getstate(), np.random.get_state()
    devices = started()
    noise = noise_state(*devices)
    check = Distribution._validate_sample
    Distribution._validate_sample = lambda self, value: None  # type: ignore[method-assign]  # for the body alone
    store = pyro.get_param_store()
    tables: list[Any] = [(t, dict(t)) for t in (store._params, store._constraints, store._param_to_name)]
    try:
        yield NoWrites()
    finally:
        put_back(noise, *devices)
        Distribution._validate_sample = check  # type: ignore[method-assign]  # as it was
        created = [n for n in tables[0][0] if n not in tables[0][1]]
        for table, kept in tables:
            if len(table) != len(kept):
                table.clear()
                table.update(kept)
        drawn = random.getstate() != state
        drawn_by_numpy = not _equal(np.random.get_state(), numpy_state)
        random.setstate(state)
        np.random.set_state(numpy_state)
    if drawn or drawn_by_numpy:
        raise UntraceableError(f"it draws random numbers of {'NumPy' if drawn_by_numpy else 'Python'}")
    if created:
        raise UntraceableError(f"it makes the parameter {created[0]!r} for these arguments alone")


def _equal(one: Any, other: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
