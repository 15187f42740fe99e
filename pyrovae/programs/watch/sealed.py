"""Objects whose state is not in Python's hands: which of them keep none, and which can be compared whole."""

from __future__ import annotations

import array
import collections
import contextvars
import datetime
import decimal
import functools
import operator
import re
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

# Made by C, with nothing in them that changes and that a program would read.
_EMPTY: set[type] = {object, range, slice, complex, types.SimpleNamespace, threading.local, types.CodeType}
_EMPTY |= {types.GenericAlias, types.UnionType, type(Ellipsis), type(NotImplemented), np.ufunc, np.dtype}
_EMPTY |= {types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType}
_EMPTY |= {types.GetSetDescriptorType, types.MemberDescriptorType, types.FrameType, types.TracebackType}
_EMPTY |= {re.Pattern, re.Match, decimal.Decimal, datetime.timedelta, datetime.date, datetime.time}
_EMPTY |= {
    datetime.datetime,
    datetime.timezone,
    datetime.tzinfo,
    type(threading.Lock()),
    type(threading.RLock()),
}
_EMPTY |= {BaseException, int, float, str, bytes, type, super}
# Entered by a look of their own.
_ENTERED: set[type] = {dict, list, tuple, set, frozenset, collections.deque, functools.partial, np.ndarray}
_ENTERED |= {collections.OrderedDict, collections.defaultdict, types.CellType}
READERS = (operator.attrgetter, operator.itemgetter, operator.methodcaller)
# Where what is written is read by nobody.
_OUTPUT = {"logging", "tqdm", "warnings", "_thread", "concurrent", "multiprocessing", "asyncio"}

_HEAP, _IMMUTABLE = 1 << 9, 1 << 8

# What is compared as a whole: (kind, what is compared, by identity where it is a list).
WHOLE: list[tuple[Any, Callable[[Any], Any]]] = [
    ((bytearray, array.array), bytes),
    (memoryview, bytes),
    (contextvars.ContextVar, lambda v: [v.get(None)]),
    (weakref.ReferenceType, lambda r: [r()]),
    (types.MappingProxyType, lambda m: [*m.keys(), *m.values()]),
    ((type({}.keys()), type({}.values())), list),
    (type({}.items()), lambda items: [part for pair in items for part in pair]),
]


def by_c(kind: type) -> bool:
    """Whether C code makes a class, and may keep something in its objects."""
    flags = kind.__flags__
    return not flags & _HEAP or bool(flags & _IMMUTABLE) or type(kind).__module__ == "_ctypes"


def is_sealed(value: Any) -> bool:
    """Whether an object may keep what no look at it shows."""
    kinds = [b for b in type(value).__mro__ if by_c(b) and b not in _EMPTY and b not in _ENTERED]
    return any(not _raises_only(b) for b in kinds)


def _raises_only(kind: type) -> bool:
    return issubclass(kind, BaseException) or kind.__module__ in ("typing", "_abc", "_thread", "torch._C")


def is_output(kind: type) -> bool:
    """Whether objects of a library's class are written to, and not read."""
    return kind.__module__.partition(".")[0] in _OUTPUT


def names_in(reader: Any) -> set[str]:
    """Attributes and keys that an `attrgetter`, `itemgetter` or `methodcaller` reads."""
    names: set[str] = set()
    waiting: list[Any] = list(reader.__reduce__())
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            names.update(part.split("."))
        elif isinstance(part, functools.partial):
            waiting += [part.args, part.keywords]
        elif isinstance(part, tuple | list):
            waiting += part
        elif isinstance(part, dict):
            waiting += [*part, *part.values()]
    return names
