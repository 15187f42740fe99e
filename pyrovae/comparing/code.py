"""A hash of what a function or an object computes by, as far as Python can tell: code, constants, plain values."""

from __future__ import annotations

import functools
import hashlib
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size)
PYRO = ("_pyro_params", "_pyro_samples")  # constraints and priors of a PyroModule
TORCHS = set(vars(nn.Module())) - {"training"}  # attributes of every module, its parts among them
NO_CODE = (types.GetSetDescriptorType, types.MemberDescriptorType, types.WrapperDescriptorType)
LIBRARIES = ("site-packages", "dist-packages")


def hash_of_code(*objects: Any, weights: bool = True) -> str:
    """SHA-256 of byte code, constants, defaults, closures, the globals that are used, classes and attributes.

    Of functions and classes of installed libraries and of Python the name alone counts; of what has no code to look
    at, the type. Equal code in another file is equal; another version of Python compiles other code.

    Args:
        objects: functions, methods, modules, partials, or any others.
        weights: parameters and buffers of modules count by their values, and otherwise by their shapes alone.
    """
    digest = hashlib.sha256()
    for piece in _Walk(weights).pieces(objects):
        digest.update(piece)
    return digest.hexdigest()


class _Walk:
    """One walk through objects; each is met once, and later by its number."""

    def __init__(self, weights: bool) -> None:
        self.weights = weights
        self.met: dict[int, int] = {}
        self.alive: list[Any] = []  # so that no number is used twice

    def pieces(self, value: Any) -> Iterator[bytes]:
        """Bytes that equal values have in common."""
        if isinstance(value, PLAIN):
            yield f"{type(value).__name__}:{value!r};".encode()
            return
        if id(value) in self.met:
            yield f"met:{self.met[id(value)]};".encode()
            return
        self.met[id(value)] = len(self.met)
        self.alive.append(value)
        yield f"{type(value).__module__}.{type(value).__qualname__}:".encode()
        yield from self._inside(value)
        yield b";"

    def _inside(self, value: Any) -> Iterator[bytes]:
        if isinstance(value, Tensor):
            yield from self._numbers(value, not isinstance(value, nn.Parameter))
        elif isinstance(value, np.ndarray | np.generic):
            yield from self._array(np.asarray(value))
        elif isinstance(value, types.FunctionType):
            yield from self._function(value)
        elif isinstance(value, types.MethodType):
            yield from self.pieces([value.__func__, value.__self__])
        elif isinstance(value, functools.partial):
            yield from self.pieces([value.func, value.args, value.keywords])
        elif isinstance(value, types.CodeType):
            yield from self._code(value)
        elif isinstance(value, type):
            yield from self._class(value)
        elif isinstance(value, types.ModuleType):
            yield value.__name__.encode()
            if not is_library(value.__name__):  # the user's own: all that is in it may be used
                own = {k: v for k, v in vars(value).items() if k[:2] != "__"}
                yield from self.pieces(dict(sorted(own.items())))
        elif isinstance(value, list | tuple):
            for item in value:
                yield from self.pieces(item)
        elif isinstance(value, set | frozenset):
            yield from sorted(b"".join(_Walk(self.weights).pieces(item)) for item in value)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                yield from self.pieces(key)
                yield from self.pieces(item)
        elif isinstance(value, nn.Module):
            yield from self._module(value)
        else:
            yield from self.pieces(type(value))
            yield from self.pieces(_state(value))

    def _numbers(self, value: Tensor, counts: bool) -> Iterator[bytes]:
        yield f"{tuple(value.shape)} {value.dtype}".encode()
        if counts or self.weights:
            plain = value.detach().cpu().contiguous()
            if plain.dtype == torch.bfloat16:  # which numpy does not know
                plain = plain.view(torch.int16)
            yield plain.resolve_conj().resolve_neg().numpy().tobytes()

    def _array(self, value: np.ndarray) -> Iterator[bytes]:
        yield f"{value.shape} {value.dtype}".encode()
        if value.dtype.hasobject:
            yield from self.pieces(value.tolist())
        else:
            yield np.ascontiguousarray(value).tobytes()

    def _function(self, fn: types.FunctionType) -> Iterator[bytes]:
        yield fn.__qualname__.encode()
        if is_library(fn.__module__):
            yield fn.__module__.encode()
        else:
            yield from self.pieces(fn.__code__)
            used = {n: fn.__globals__[n] for n in _names(fn.__code__) if n in fn.__globals__}
            yield from self.pieces([fn.__defaults__, fn.__kwdefaults__, used])
        for cell in fn.__closure__ or ():
            try:
                yield from self.pieces(cell.cell_contents)
            except ValueError:  # not filled yet
                yield b"empty;"
        wrapped = getattr(fn, "__wrapped__", None)
        if wrapped is not None:
            yield from self.pieces(wrapped)

    def _code(self, code: types.CodeType) -> Iterator[bytes]:
        yield code.co_code
        yield " ".join((*code.co_names, *code.co_varnames, *code.co_freevars)).encode()
        yield from self.pieces(code.co_consts)

    def _class(self, kind: type) -> Iterator[bytes]:
        yield f"{kind.__module__}.{kind.__qualname__}".encode()
        if is_library(kind.__module__):
            return
        for base in kind.__mro__[1:]:
            yield from self.pieces(base)
        for name, value in sorted(vars(kind).items()):
            if name not in ("__dict__", "__weakref__", "__doc__", "__module__", "__static_attributes__"):
                inner = value.__func__ if isinstance(value, staticmethod | classmethod) else value
                inner = inner.fget if isinstance(inner, property) else inner
                inner = inner.func if isinstance(inner, functools.cached_property) else inner
                yield name.encode()
                if not isinstance(inner, NO_CODE):
                    yield from self.pieces(inner)

    def _module(self, module: nn.Module) -> Iterator[bytes]:
        yield from self.pieces(type(module))
        # Pyro keeps what it needs under its own prefix; constraints and priors are among that.
        own = {
            k: v
            for k, v in vars(module).items()
            if k in PYRO or (k not in TORCHS and k != "training" and not k.startswith("_pyro"))
        }
        yield from self.pieces(own)
        for name, parameter in module._parameters.items():
            yield name.encode()
            yield from self.pieces(parameter)
        for name, buffer in module._buffers.items():
            yield name.encode()
            if buffer is not None:
                kept = name not in module._non_persistent_buffers_set
                yield from self._numbers(buffer, counts=not kept)
        for name, child in module._modules.items():
            yield name.encode()
            yield from self.pieces(child)


def is_library(name: str | None) -> bool:
    """Whether a module is Python's, an installed library's, or one of pyrovae's own."""
    head = (name or "").partition(".")[0]
    if head in sys.stdlib_module_names or head in ("pyrovae", "torch", "pyro", "builtins"):
        return head != "__main__"
    file = getattr(sys.modules.get(head), "__file__", None) or ""
    return any(f"/{folder}/" in file.replace("\\", "/") for folder in LIBRARIES)


def _names(code: types.CodeType) -> list[str]:
    """Names that a function and those within it look up, sorted."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= set(_names(constant))
    return sorted(found)


def _state(value: Any) -> Any:
    """State that a copy of an object is made from, as `pickle` asks for it; else its attributes."""
    try:
        made = value.__reduce_ex__(2)
    except Exception:  # each kind of object has an error of its own
        return _attributes(value)
    if not isinstance(made, tuple):
        return made
    return [list(part) if isinstance(part, Iterator) else part for part in made[1:]]


def _attributes(value: Any) -> dict[str, Any]:
    own = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, name) and not name.startswith("__"):
                own[name] = getattr(value, name)
    return own
