"""A program's state in Python, kept so that a run of it can be undone."""

from __future__ import annotations

import contextvars
import copy
import functools
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch

from .reachable import search
from .reading import Ran
from .trust import is_plain
from .undisturbed import UntraceableError

GONE = type("Gone", (), {"__repr__": lambda self: "gone"})()


def same(now: Any, before: Any) -> bool:
    """The same object, or a plain value equal to it (nan is nan, and 1 is not True)."""
    if now is before:
        return True
    plain = type(now) is type(before) and is_plain(now)
    return plain and (bool(now == before) or (now != now and before != before))


_STATES = (random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator, torch.Generator)


def _put_back(generator: Any) -> Callable[[], None]:
    """Sets a generator of random numbers to where it is now."""
    if isinstance(generator, np.random.Generator):
        generator = generator.bit_generator
    if isinstance(generator, np.random.BitGenerator):
        return functools.partial(setattr, generator, "state", copy.deepcopy(generator.state))
    if isinstance(generator, random.Random):
        return functools.partial(generator.setstate, generator.getstate())
    return functools.partial(generator.set_state, generator.get_state())


class Snapshot:
    """A program's state in Python, so that a run of it can be undone.

    Args:
        roots: objects to start from.
        more: dicts beside those that can be reached.
        tensors: keep what stands in tensors, too.
    """

    def __init__(
        self, roots: Mapping[str, Any], more: Iterable[dict[Any, Any]] = (), tensors: bool = False
    ) -> None:
        reach = search(Ran(None), roots)
        self._tensors = (
            [(t, t._version, t.detach().clone()) for t in reach.tensors.values()] if tensors else []
        )
        self._classes, self._library = reach.classes, reach.library
        places = {id(p): (p, name) for p, _, name in reach.places} | {
            id(p): (p, "Pyro's store") for p in more
        }
        self._kept = [(p, _copy(p), name) for p, name in places.values()]
        self._fields = [(o, n, getattr(o, n, GONE), name) for o, n, name in reach.fields]
        self._generators = [(_put_back(o), name) for o, name in reach.opaque if isinstance(o, _STATES)]
        # What was read cannot be put back: refused before it is.
        self._streams = [(o, name) for o, name in reach.opaque if not isinstance(o, _STATES)]
        self._wholes = [(o, read, _parts(read(o)), name) for o, read, name in reach.wholes]
        self._reach, self._roots = reach, roots

    def refuse_streams(self) -> None:
        """Refuses a program that may read an iterator or a file, which a look would move on.

        Raises:
            UntraceableError: naming it.
        """
        if not self._streams:
            return
        ran = Ran(self._reach.code())
        for _, name in (o for o in search(ran, self._roots).opaque if not isinstance(o[0], _STATES)):
            where = ran.where(name.split(".")[-1])
            raise UntraceableError(f"it reads {name!r}, which gives something else each time{where}")

    def restore(self) -> list[tuple[str, str, tuple[int, Any] | None]]:
        """Puts all back; returns owner and key of what had changed, and its place where it is a library's."""
        found: list[tuple[str, str, tuple[int, Any] | None]] = []
        for tensor, version, value in self._tensors:
            if tensor._version != version:
                with torch.no_grad():
                    tensor.copy_(value)
        for place, kept, name in self._kept:
            if hasattr(place, "keys"):
                keys = [k for k in {**kept, **place} if not same(place.get(k, GONE), kept.get(k, GONE))]
                owner = self._classes.get(id(place))
                for key in keys:
                    found.append((name, str(key), (id(place), key) if id(place) in self._library else None))
                    _put(place if owner is None else owner, key, kept.get(key, GONE), owner is not None)
            elif len(place) != len(kept) or any(a is not b for a, b in zip(place, kept, strict=True)):
                found.append((name, "", None))
                place.clear()
                place.update(kept) if isinstance(place, set) else place.extend(kept)
        for o, n, value, name in self._fields:
            if not same(getattr(o, n, GONE), value) and value is not GONE:
                found.append((name, n, None))
                setattr(o, n, value)
        for o, read, kept_parts, name in self._wholes:
            if not equal_parts(_parts(read(o)), kept_parts):
                found.append((name, "", None))
                if isinstance(kept_parts, bytes) and not isinstance(o, memoryview):
                    o[:] = (
                        type(o)(kept_parts) if isinstance(o, bytearray) else type(o)(o.typecode, kept_parts)
                    )
                elif isinstance(o, contextvars.ContextVar):
                    o.set(kept_parts[0])
        for put_back, _ in self._generators:
            put_back()
        return found


def _copy(place: Any) -> Any:
    if hasattr(place, "keys"):
        return dict(place.items())
    return set(place) if isinstance(place, set | frozenset) else list(place)


def _parts(read: Any) -> Any:
    return read if isinstance(read, bytes) else list(read)


def equal_parts(now: Any, before: Any) -> bool:
    """Whether bytes are equal, or elements the same objects or equal plain values."""
    if isinstance(now, bytes):
        return bool(now == before)
    return len(now) == len(before) and all(map(same, now, before))


def _put(place: Any, key: Any, value: Any, attribute: bool) -> None:
    if attribute:
        delattr(place, key) if value is GONE else setattr(place, key, value)
    elif value is GONE:
        del place[key]
    else:
        place[key] = value
