"""Programs given in Python: a pair, an object that has one, or a function of the data that builds one."""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from pyro.infer.autoguide import AutoGuide
from torch import Tensor, nn

from ..data import Dataset
from ..programs import ParameterStore
from ..programs.placed import placed
from ..runs.loading import as_pair
from .cell import Pair
from .code import is_library


@dataclass(frozen=True, eq=False)
class Built:
    """A program that a function of the data builds, under the seed of each cell."""

    name: str
    builder: Callable[[Any], Any]

    def build(self, data: Dataset, seed: int) -> Pair:
        """A new model and guide, on the device of the data."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            owner = self.builder(data)
        if isinstance(owner, nn.Module):
            owner.to(data.train.device)
        return placed(*as_pair(owner, f"the builder of {self.name!r}"), data.train.device)


@dataclass(frozen=True, eq=False)
class Copied:
    """A program that is built already: each cell has a copy, with the weights as they were given."""

    name: str
    pair: Pair

    def build(self, data: Dataset, seed: int) -> Pair:
        """A copy of model and guide, on the device of the data."""
        return placed(*copied(self.pair), data.train.device)


def program_of(name: str, given: Any) -> Built | Copied:
    """Builder of the program given under this name.

    Raises:
        TypeError: no pair, no object that has one, and no function.
    """
    if hasattr(given, "model") and hasattr(given, "guide") and not isinstance(given, type):
        return Copied(name, (given.model, given.guide))
    if isinstance(given, tuple | list) and len(given) == 2 and all(map(callable, given)):
        return Copied(name, (given[0], given[1]))
    if callable(given) and not isinstance(given, nn.Module):
        return Built(name, given)
    raise TypeError(
        f"expected program {name!r} to be a (model, guide) pair, an object with .model and .guide, or a function of "
        f"the data that gives one, got {type(given).__name__}"
    )


def copied(pair: Pair) -> Pair:
    """Deep copies of both, which share what the two share and nothing with the originals.

    Functions are copied too, with the modules and tensors in their closures and among the globals that they use:
    `copy.deepcopy` alone takes a function as it is, and its modules with it.

    Raises:
        ValueError: an AutoGuide of Pyro's.
    """
    memo: dict[int, Any] = {}
    for fn in pair:
        _copy_functions(fn, memo)
    return _copy(pair[0], memo), _copy(pair[1], memo)


def _copy(value: Any, memo: dict[int, Any]) -> Any:
    owner = getattr(value, "__self__", value)
    if isinstance(owner, nn.Module) and any(isinstance(m, AutoGuide) for m in owner.modules()):
        # Pyro's way to copy one takes the model from the original.
        raise ValueError(
            "expected a guide that can be copied, got one of Pyro's AutoGuides, which loses its model by that; try a "
            "function of the data that builds it: lambda data: (model, AutoNormal(model))"
        )
    return copy.deepcopy(value, memo)


def _copy_functions(fn: Any, memo: dict[int, Any]) -> None:
    """Puts copies of a function, and of those that it uses, into a memo of `copy.deepcopy`."""
    if id(fn) in memo:
        return
    if isinstance(fn, functools.partial):
        for inner in (fn.func, *fn.args, *fn.keywords.values()):
            _copy_functions(inner, memo)
    elif isinstance(fn, types.MethodType):
        for inner in getattr(fn.__self__, "__dict__", {}).values():
            _copy_functions(inner, memo)
    elif isinstance(fn, types.FunctionType) and not is_library(fn.__module__):
        _copy_function(fn, memo)
    elif isinstance(fn, types.FunctionType) and fn.__closure__ and hasattr(fn, "__wrapped__"):
        _copy_function(fn, memo)  # a decorator of a library, around the user's own


def _copy_function(fn: types.FunctionType, memo: dict[int, Any]) -> None:
    cells = fn.__closure__ or ()
    new_cells = tuple(types.CellType() for _ in cells)
    names = {n: fn.__globals__[n] for n in _used(fn.__code__) if n in fn.__globals__}
    own = {n: v for n, v in names.items() if _is_copied(v)}
    scope = {**fn.__globals__} if own else fn.__globals__
    new = types.FunctionType(fn.__code__, scope, fn.__name__, fn.__defaults__, new_cells)
    new.__kwdefaults__ = fn.__kwdefaults__
    memo[id(fn)] = new  # before what is within it, which may use it
    memo.setdefault(id(memo), []).append(fn)  # as deepcopy keeps what it has copied alive
    for value in own.values():
        _copy_functions(value, memo)
    for name, value in own.items():
        scope[name] = _copy(value, memo)
    for cell, new_cell in zip(cells, new_cells, strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # not filled yet
            continue
        _copy_functions(value, memo)
        new_cell.cell_contents = _copy(value, memo) if _is_copied(value) else value
    for name, value in vars(fn).items():
        _copy_functions(value, memo)
        setattr(new, name, _copy(value, memo) if _is_copied(value) else value)
    new.__module__, new.__qualname__, new.__doc__ = fn.__module__, fn.__qualname__, fn.__doc__


def _is_copied(value: Any) -> bool:
    """Whether a cell has its own: weights, what holds them, and functions that may."""
    if isinstance(value, types.FunctionType):
        return not is_library(value.__module__) or hasattr(value, "__wrapped__")
    if isinstance(value, list | tuple):
        return any(map(_is_copied, value))
    if isinstance(value, dict):
        return any(map(_is_copied, value.values()))
    return isinstance(value, nn.Module | Tensor | types.MethodType | functools.partial | ParameterStore)


def _used(code: types.CodeType) -> set[str]:
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _used(constant)
    return found
