"""Search for what of Python's state a program can reach from some objects: what its graph takes for granted."""

from __future__ import annotations

import argparse
import collections
import functools
import io
import random
import sys
import threading
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from pyro.optim import PyroOptim
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from .reach import Reach
from .reading import Ran, texts
from .sealed import READERS, WHOLE, is_output, is_sealed, names_in
from .trust import CLOCKS, LIBRARIES, is_plain, trusted

_RANDOM = (random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator, torch.Generator)
_OPAQUE = (collections.abc.Iterator, io.IOBase, *_RANDOM)
# Attributes of torch's modules that no forward reads: the sizes are those of the weights.
_SIZES = {"in_features", "out_features", "in_channels", "out_channels", "num_embeddings", "embedding_dim"}
_INNER = ("_parameters", "_buffers", "_modules", "_pyro_samples", "_pyro_params")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_FOLLOWED = (torch.distributions.Distribution, torch.distributions.Transform, Messenger)
# Of the library's objects, those that a program may read as its own.
_READ = (torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler, torch.utils.data.Dataset, PyroOptim)
# Objects of Python's library whose attributes are a user's.
_NAMESPACES = (types.SimpleNamespace, argparse.Namespace, threading.local)
_CONSTANT = {
    "pathlib",
    "fractions",
    "decimal",
    "re",
    "uuid",
    "ipaddress",
    "datetime",
    "typing",
    "inspect",
    "abc",
}
_LRU = type(functools.lru_cache(int))
_SMALL = 256  # elements of a container that are compared one by one
LARGEST = 10_000  # elements of containers that are compared as a whole
MANY = 20_000  # objects of a program that are looked at


def search(ran: Ran, roots: Mapping[str, Any]) -> Reach:
    """Looks at `roots`, at the globals of the code that ran, and at what these hold."""
    while True:
        known = len(ran.words)
        found = _Search(ran).start(roots)
        if len(ran.words) == known:
            return found


class _Search:
    def __init__(self, ran: Ran) -> None:
        self.ran, self.found = ran, Reach()
        self._seen: dict[int, Any] = {}
        self._waiting: list[tuple[Any, str]] = []
        self._elements = 0

    def start(self, roots: Mapping[str, Any]) -> Reach:
        self._waiting += [(value, name) for name, value in roots.items()]
        for code, space in self.ran.code or ():
            self._globals(code, space)
        while self._waiting and not self.found.full:
            self._visit(*self._waiting.pop())
            self.found.full = len(self._seen) > MANY
        return self.found

    def _globals(self, code: types.CodeType, space: dict[str, Any]) -> None:
        words = {*code.co_names, *texts(code.co_consts)}
        named = [n for n in space if not n.startswith("__")] if "globals" in words else sorted(words)
        keys = tuple(n for n in named if n in space and not _library(space[n]))
        if keys:
            self.found.places.append((space, keys, "the global"))
        for key in keys:
            self._waiting.append((space[key], key))
        for name in words:  # imported within a function
            module = sys.modules.get(name)
            if module is not None and name not in space and not trusted(name):
                self._waiting.append((module, name))
        if self.ran.code is None:
            for constant in code.co_consts:
                if isinstance(constant, types.CodeType):
                    self._globals(constant, space)

    def _visit(self, value: Any, name: str) -> None:
        if is_plain(value) or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        for kinds, look in _LOOKS:
            if isinstance(value, kinds):
                look(self, value, name)
                if not isinstance(value, nn.Module | type | types.ModuleType):
                    self._beside(value, name)
                return
        self._instance(value, name)

    def _beside(self, value: Any, name: str) -> None:
        """Attributes of a list, a function or a tensor: of a class of a user's, or written onto it."""
        if not trusted(type(value).__module__):
            self._parts(value, name)
        elif isinstance(own := getattr(value, "__dict__", None), dict) and own:
            self._named_plainly(own, self.ran.reads_of(value, own), type(value).__name__)

    def _tensor(self, value: Tensor, name: str) -> None:
        self.found.tensors[id(value)] = value

    def _opaque(self, value: Any, name: str) -> None:
        self.found.opaque.append((value, name))

    def _array(self, value: np.ndarray, name: str) -> None:
        self.found.arrays.append((value, name))
        if value.dtype.hasobject and value.size <= LARGEST:
            self._waiting += [(v, name) for v in value.ravel().tolist()]

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
        if getattr(value, "__module__", None) in CLOCKS or isinstance(value.__self__, _OPAQUE):
            self.found.opaque.append((value.__self__, name))
        elif not isinstance(value.__self__, types.ModuleType):
            self._waiting.append((value.__self__, name))

    def _reader(self, value: Any, name: str) -> None:
        self.ran.words |= names_in(value)

    def _cached(self, value: Any, name: str) -> None:
        self._waiting.append((value.__wrapped__, name))

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
                self._run(space, kind)
                for key in ("__call__", "__init__", "__getattr__", "__getattribute__", "__getitem__"):
                    if key in space:
                        self._waiting.append((space[key], key))

        if not trusted(type(value).__module__):
            self._waiting.append((type(value), name))

    def _run(self, space: Any, kind: type) -> None:
        """Methods with a name of Python's that ran: `__len__`, `__mul__`."""
        if self.ran.code is not None:
            own = [k for k, f in space.items() if k.startswith("__") and isinstance(f, types.FunctionType)]
            keys = tuple(k for k in own if self.ran.runs(space[k].__code__))
            self.found.places.append((space, keys, kind.__name__))
            self._waiting += [(space[k], k) for k in keys]

    def _module(self, value: types.ModuleType, name: str) -> None:
        if not trusted(value.__name__):
            self._named(vars(value), [k for k in vars(value) if k in self.ran.names], value.__name__)

    def _named(self, space: Any, names: list[str], owner: str) -> None:
        keys = tuple(k for k in names if self.ran.reads(k))
        if keys:
            self.found.places.append((space, keys, owner))
        self._waiting += [(space[k], f"{owner}.{k}") for k in keys]

    def _dict(self, value: dict[Any, Any], name: str) -> None:
        own_look = type(value).__getitem__ is not dict.__getitem__ or hasattr(value, "__missing__")
        whole = self.ran.code is not None and (own_look or len(value) > _SMALL)
        self.found.places.append((value, () if whole else None, name))
        if whole and self._counted(value, name):
            self.found.wholes.append((value, _pairs, name))
        for key, inner in list(dict.items(value)):
            self._waiting += [(key, name), (inner, f"{name}[{key!r}]" if is_plain(key) else name)]

    def _list(self, value: Any, name: str) -> None:
        whole = self.ran.code is not None and len(value) > _SMALL
        self.found.places.append((value, () if whole else None, name))
        if whole and self._counted(value, name):
            self.found.wholes.append((value, list, name))
        self._waiting += [(v, f"{name}[{i}]") for i, v in enumerate(value) if not is_plain(v)]

    def _counted(self, value: Any, name: str) -> bool:
        """Whether a container's elements can be compared at each step, beside those of others."""
        self._elements += len(value)
        if self._elements > LARGEST:
            self.found.large.append((value, name))
        return self._elements <= LARGEST

    def _set(self, value: Any, name: str) -> None:
        self.found.places.append((value, None, name))
        self._counted(value, name)
        self._waiting += [(v, name) for v in value if not is_plain(v)]

    def _tuple(self, value: Any, name: str) -> None:
        self._waiting += [(v, f"{name}[{i}]") for i, v in enumerate(value) if not is_plain(v)]

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
        public = [k for k in own if not k.startswith("_") and k not in _SIZES]
        read = {"training", *self.ran.reads_of(value, own), *(() if plain_base else public)}
        self._named_plainly(own, [k for k in own if k in read and k not in inner], kind)
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
        for kinds, read in WHOLE:
            if isinstance(value, kinds):
                self._whole(value, read, name)
                return
        library = kind.__module__.partition(".")[0] in LIBRARIES
        if library and not isinstance(value, _READ):
            self.found.library.add(id(own))
            if own and (
                isinstance(value, _FOLLOWED)
                or hasattr(value, "forward")
                or kind.__module__.startswith("pyrovae")
            ):
                public = [k for k in own if not k.startswith("_")]
                self._named_plainly(own, public, kind.__name__)
            return
        if is_sealed(value):
            self.found.sealed.append((value, name))
        elif kind.__module__ not in _CONSTANT:
            self._parts(value, name)

    def _whole(self, value: Any, read: Callable[[Any], Any], name: str) -> None:
        parts = read(value)
        if self._counted(parts, name):
            self.found.wholes.append((value, read, name))
        if not isinstance(parts, bytes):
            self._waiting += [(v, name) for v in parts]

    def _parts(self, value: Any, name: str) -> None:
        """Attributes and slots that may be read, and the class."""
        kind, own = type(value), getattr(value, "__dict__", None)
        # Python's library reads its objects' attributes, which no code of a user's names.
        every = trusted(kind.__module__) and not is_output(kind) and not isinstance(value, _NAMESPACES)
        self.found.objects.append(value)
        if own is not None:
            keys = list(own) if every else self.ran.reads_of(value, own)
            if isinstance(value, torch.optim.Optimizer):
                keys = [k for k in own if k in ("param_groups", "defaults") or self.ran.reads(k)]
            self._named_plainly(own, keys, kind.__name__)
        slots = [n for k in kind.__mro__ for n in _as_tuple(getattr(k, "__slots__", ()))]
        for slot in slots if every else self.ran.reads_of(value, slots):
            if slot != "__dict__" and slot != "__weakref__" and hasattr(value, slot):
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


def _pairs(value: dict[Any, Any]) -> list[Any]:
    return [*dict.keys(value), *dict.values(value)]


def _library(value: Any) -> bool:
    return isinstance(value, types.ModuleType) and trusted(value.__name__) and value.__name__ not in CLOCKS


def _as_tuple(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


_LOOKS: list[tuple[Any, Callable[[_Search, Any, str], None]]] = [
    (Tensor, _Search._tensor),
    (np.ndarray, _Search._array),
    (nn.Module, _Search._torch_module),
    (types.FunctionType, _Search._function),
    ((types.BuiltinFunctionType, types.MethodWrapperType), _Search._builtin),
    (READERS, _Search._reader),
    (_LRU, _Search._cached),
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
