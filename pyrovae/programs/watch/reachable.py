"""Search for what of Python's state a program can reach from some objects: what its graph takes for granted."""

from __future__ import annotations

import collections
import functools
import io
import random
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from .reach import Reach
from .reading import CLOCKS, PLAIN, Ran, trusted

_RANDOM = (random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator, torch.Generator)
_OPAQUE = (collections.abc.Iterator, io.IOBase, *_RANDOM)
# Attributes of torch's modules that no forward reads: the sizes are those of the weights.
_SIZES = {"in_features", "out_features", "in_channels", "out_channels", "num_embeddings", "embedding_dim"}
_INNER = ("_parameters", "_buffers", "_modules", "_pyro_samples", "_pyro_params")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_LIBRARIES = ("torch", "pyro", "pyrovae")
_FOLLOWED = (torch.distributions.Distribution, torch.distributions.Transform, Messenger)
_SMALL = 256  # elements of a container that are looked at one by one
MANY = 20_000  # objects of a program that are looked at


def search(ran: Ran, roots: Mapping[str, Any]) -> Reach:
    """Looks at `roots`, at the globals of the code that ran, and at what these hold."""
    return _Search(ran).start(roots)


class _Search:
    def __init__(self, ran: Ran) -> None:
        self.ran, self.found = ran, Reach()
        self._seen: dict[int, Any] = {}
        self._waiting: list[tuple[Any, str]] = []

    def start(self, roots: Mapping[str, Any]) -> Reach:
        self._waiting += [(value, name) for name, value in roots.items()]
        for code, space in self.ran.code or ():
            self._globals(code, space)
        while self._waiting and not self.found.full:
            self._visit(*self._waiting.pop())
            self.found.full = len(self._seen) > MANY
        return self.found

    def _globals(self, code: types.CodeType, space: dict[str, Any]) -> None:
        keys = tuple(n for n in code.co_names if n in space and not _library(space[n]))
        if keys:
            self.found.places.append((space, keys, "the global"))
        for key in keys:
            self._waiting.append((space[key], key))
        for name in code.co_names:  # imported within a function
            module = sys.modules.get(name)
            if module is not None and name not in space and not trusted(name):
                self._waiting.append((module, name))
        if self.ran.code is None:
            for constant in code.co_consts:
                if isinstance(constant, types.CodeType):
                    self._globals(constant, space)

    def _visit(self, value: Any, name: str) -> None:
        if isinstance(value, PLAIN) or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        for kinds, look in _LOOKS:
            if isinstance(value, kinds):
                look(self, value, name)
                return
        self._instance(value, name)

    def _tensor(self, value: Tensor, name: str) -> None:
        self.found.tensors[id(value)] = value

    def _opaque(self, value: Any, name: str) -> None:
        self.found.opaque.append((value, name))

    def _array(self, value: np.ndarray, name: str) -> None:
        self.found.arrays.append((value, name))

    def _function(self, value: types.FunctionType, name: str) -> None:
        own = not trusted(value.__globals__.get("__name__"))  # functools.wraps copies __module__
        if own and not self.ran.runs(value.__code__):
            return
        if own:
            self.found.functions.append(value)
            if value.__kwdefaults__:
                self.found.places.append((value.__kwdefaults__, None, f"the defaults of {value.__name__}"))
        for free, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                inner = cell.cell_contents
            except ValueError:  # not yet bound
                continue
            if own:
                self.found.fields.append((cell, "cell_contents", f"{free!r} of {value.__name__}"))
            self._waiting.append((inner, free))
        defaults = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        self._waiting += [(d, f"a default of {value.__name__}") for d in defaults]
        if hasattr(value, "__wrapped__"):
            self._waiting.append((value.__wrapped__, name))
        if own and self.ran.code is None:
            self._globals(value.__code__, value.__globals__)

    def _builtin(self, value: types.BuiltinFunctionType, name: str) -> None:
        if value.__module__ in CLOCKS or isinstance(value.__self__, _OPAQUE):
            self.found.opaque.append((value.__self__, name))

    def _method(self, value: types.MethodType, name: str) -> None:
        self._waiting += [(value.__func__, name), (value.__self__, name)]

    def _partial(self, value: functools.partial[Any], name: str) -> None:
        self._waiting += [(value.func, name), (value.args, name), (value.keywords, name)]

    def _wrapper(self, value: Any, name: str) -> None:
        inner = value.fget if isinstance(value, property) else value.__func__
        if inner is not None:
            self._waiting.append((inner, name))

    def _class(self, value: type, name: str) -> None:
        for kind in value.__mro__:
            if not trusted(kind.__module__):
                space = vars(kind)
                self.found.classes[id(space)] = kind
                self._named(space, [k for k in space if not k.startswith("__")], kind.__name__)
                for key in ("__call__", "__init__", "__getattr__", "__getattribute__", "__getitem__"):
                    if key in space:
                        self._waiting.append((space[key], key))

    def _module(self, value: types.ModuleType, name: str) -> None:
        if not trusted(value.__name__):
            self._named(vars(value), [k for k in vars(value) if k in self.ran.names], value.__name__)

    def _named(self, space: Any, names: list[str], owner: str) -> None:
        keys = tuple(k for k in names if self.ran.reads(k))
        if keys:
            self.found.places.append((space, keys, owner))
        self._waiting += [(space[k], f"{owner}.{k}") for k in keys]

    def _dict(self, value: dict[Any, Any], name: str) -> None:
        all_keys = len(value) <= _SMALL or self.ran.code is None
        keys = tuple(k for k in value if isinstance(k, PLAIN) and (all_keys or self.ran.reads(k)))
        self.found.places.append((value, None if len(keys) == len(value) else keys, name))
        self._waiting += [(value[k], f"{name}[{k!r}]") for k in keys]

    def _list(self, value: Any, name: str) -> None:
        self.found.places.append((value, None if len(value) <= _SMALL or self.ran.code is None else (), name))
        if len(value) <= _SMALL:
            self._waiting += [(v, f"{name}[{i}]") for i, v in enumerate(value)]

    def _set(self, value: Any, name: str) -> None:
        self.found.places.append((value, None, name))

    def _tuple(self, value: Any, name: str) -> None:
        self._waiting += [(v, f"{name}[{i}]") for i, v in enumerate(value[:_SMALL])]

    def _torch_module(self, value: nn.Module, name: str) -> None:
        own, kind = vars(value), type(value).__name__
        self.found.modules.append(value)
        self.found.objects.append(value)
        if trusted(type(value).__module__):
            self.found.library.add(id(own))
        inner = [key for key in _INNER if key in own]
        for key in inner:
            self._dict(own[key], kind)
        for key in _HOOKS:
            self.found.places.append((own[key], None, f"the hooks of {kind}"))
            self._waiting += [(h, "a hook") for h in own[key].values()]
        # Of a layer of torch's the library reads attributes that no code of a user's names.
        bases = {b for b in type(value).__mro__ if trusted(b.__module__)} - {nn.Module, object}
        plain_base = all(b.__module__ == "pyro.nn.module" for b in bases)
        public = [k for k in own if not k.startswith("_") and k != "training" and k not in _SIZES]
        read = [k for k in own if self.ran.reads(k) and k not in inner and k != "training"]
        self._named_plainly(own, ["training", *(read if plain_base else public)], kind)
        self._shadows(own, type(value))
        self._class(type(value), kind)

    def _named_plainly(self, space: Any, keys: list[str], owner: str) -> None:
        keys = [k for k in keys if (id(space), k) not in self.ran.ignored]
        self.found.places.append((space, tuple(keys) if self.ran.code is not None else None, owner))
        self._waiting += [(space[k], f"{owner}.{k}") for k in keys]

    def _instance(self, value: Any, name: str) -> None:
        kind, own = type(value), getattr(value, "__dict__", None)
        if kind.__module__ == "pyrovae.svi.svi":  # what counts the steps
            return
        if trusted(kind.__module__) and kind.__module__.partition(".")[0] in _LIBRARIES:
            self.found.library.add(id(own))
            if own and (
                isinstance(value, _FOLLOWED)
                or hasattr(value, "forward")
                or kind.__module__.startswith("pyrovae")
            ):
                public = [k for k in own if not k.startswith("_")]
                self._named_plainly(own, public, kind.__name__)
            return
        self.found.objects.append(value)
        if own is not None:
            keys = [k for k in own if self.ran.reads(k)]
            self._named_plainly(own, keys, kind.__name__)
        slots = {n for k in kind.__mro__ for n in _as_tuple(getattr(k, "__slots__", ()))}
        for slot in slots:
            if slot != "__dict__" and self.ran.reads(slot) and hasattr(value, slot):
                self.found.fields.append((value, slot, f"{kind.__name__}.{slot}"))
                self._waiting.append((getattr(value, slot), slot))
        if own is not None:
            self._shadows(own, kind)
        self._class(kind, name)

    def _shadows(self, own: dict[str, Any], kind: type) -> None:
        """An attribute of the class may come to be one of the instance."""
        found = {k for b in kind.__mro__ if not trusted(b.__module__) for k in vars(b) if self.ran.reads(k)}
        if issubclass(kind, nn.Module):
            found.add("forward")
        if self.ran.code is not None and found - own.keys():
            self.found.absent.append((own, frozenset(found - own.keys()), kind.__name__))


def _library(value: Any) -> bool:
    return isinstance(value, types.ModuleType) and trusted(value.__name__) and value.__name__ not in CLOCKS


def _as_tuple(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


_LOOKS: list[tuple[Any, Callable[[_Search, Any, str], None]]] = [
    (Tensor, _Search._tensor),
    (np.ndarray, _Search._array),
    (nn.Module, _Search._torch_module),
    (types.FunctionType, _Search._function),
    (types.BuiltinFunctionType, _Search._builtin),
    (types.MethodType, _Search._method),
    (functools.partial, _Search._partial),
    ((property, staticmethod, classmethod), _Search._wrapper),
    (type, _Search._class),
    (types.ModuleType, _Search._module),
    (dict, _Search._dict),
    ((list, collections.deque), _Search._list),
    ((set, frozenset), _Search._set),
    (tuple, _Search._tuple),
    (_OPAQUE, _Search._opaque),
]
