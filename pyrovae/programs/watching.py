"""What a traced program took for granted of Python's state, compared at each step in microseconds."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter, getitem, is_
from typing import Any

import torch
from pyro.poutine import runtime
from torch import Tensor, nn

from .reading import CLOCKS, PLAIN, Ran, Reach

# Bytes of NumPy arrays that are compared at each step.
SMALL = 4096
_cell, _requires_grad = attrgetter("cell_contents"), attrgetter("requires_grad")


class Watch:
    """Values that code of a user's reads, as they were: by identity, so that a comparison takes some 40 ns.

    Watched are globals, closures, attributes of objects, classes and modules, elements of dicts and lists, as far
    as code that ran names them; training modes, hooks, parameters and buffers of torch's modules; the parameters'
    place in Pyro's store, and whether they are trained. Values in files, clocks and C objects are not.

    Args:
        ran: the code that ran.
        roots: objects to start from, by name.
        stored: dicts of a parameter store, with the leaves by name that they must hold.
        leaves: parameters, and whether each is trained.
    """

    def __init__(
        self,
        ran: Ran,
        roots: Mapping[str, Any],
        stored: Iterable[tuple[dict[str, Tensor], Mapping[str, Tensor]]] = (),
        leaves: Iterable[Tensor] = (),
    ) -> None:
        self.ran = ran
        reach = self.reach = Reach(ran).start(roots)
        self._places: list[Any] = []
        self._keys: list[Any] = []
        self._values: list[Any] = []
        self._names: list[str] = []
        known: set[tuple[int, Any]] = set()
        for place, keys, owner in reach.places:
            for key in _keys(place, keys):
                if (id(place), key) not in known and (id(place), key) not in ran.ignored:
                    known.add((id(place), key))
                    self._add(place, key, owner)
        self.parameters: set[int] = set()
        for store, expected in stored:
            for name in expected:
                self.parameters.add(len(self._places))
                self._add(store, name, "the parameter")
        self._sized = [p for p, keys, _ in reach.places if keys is None]
        self._sizes = [len(p) for p in self._sized]
        self._sets = [(p, set(p)) for p, _, _ in reach.places if isinstance(p, set | frozenset)]
        self._fields = [(o, n, getattr(o, n), name) for o, n, name in reach.fields if n != "cell_contents"]
        cells = [(o, name) for o, n, name in reach.fields if n == "cell_contents"]
        # The keys of a dict are a view of what is there now.
        self._absent = [(own.keys(), names, owner) for own, names, owner in reach.absent]
        self._cells = [c for c, _ in cells]
        self._cell_names = [name for _, name in cells]
        self._contents = [c.cell_contents for c in self._cells]
        self._arrays = [(a, a.tobytes(), name) for a, name in reach.arrays if a.nbytes <= SMALL]
        reached = [t for t in reach.tensors.values() if isinstance(t, nn.Parameter)]
        self._trained = list({id(p): p for p in (*leaves, *reached)}.values())
        self._flags = [p.requires_grad for p in self._trained]
        self._seldom = bool(self._fields or self._sets or self._arrays)
        self._ambient = ambient()

    def _add(self, place: Any, key: Any, owner: str) -> None:
        self._places.append(place)
        self._keys.append(key)
        self._values.append(place[key])
        self._names.append(owner)

    def holds(self) -> bool:
        """Whether all is as it was; rarely false though it is, where a value was exchanged for an equal one."""
        try:
            return (
                all(map(is_, map(getitem, self._places, self._keys), self._values))
                and all(map(is_, map(_cell, self._cells), self._contents))
                and list(map(len, self._sized)) == self._sizes
                and all(keys.isdisjoint(names) for keys, names, _ in self._absent)
                and list(map(_requires_grad, self._trained)) == self._flags
                and ambient() == self._ambient
                and (not self._seldom or self._rest_holds())
            )
        except (KeyError, IndexError, ValueError):  # gone
            return False

    def _rest_holds(self) -> bool:
        return (
            all(getattr(o, n, None) is v for o, n, v, _ in self._fields)
            and all(s == kept for s, kept in self._sets)
            and all(a.tobytes() == kept for a, kept, _ in self._arrays)
        )

    def changes(self) -> list[str]:
        """What is not as it was, in words, with file and line where code reads it."""
        return [text for text, _ in self._changes()]

    @property
    def parameters_changed(self) -> bool:
        """Whether a parameter was exchanged, frozen or released: the graph's are not the program's."""
        return any(deep for _, deep in self._changes())

    def _changes(self) -> Iterator[tuple[str, bool]]:
        slots = zip(self._places, self._keys, self._values, self._names, strict=True)
        for i, (place, key, value, owner) in enumerate(slots):
            try:
                now = place[key]
            except (KeyError, IndexError):
                now = _GONE
            if _same(now, value):
                self._values[i] = now  # an equal one, which the next look knows
            else:
                kept = i in self.parameters or (isinstance(value, Tensor) and value.requires_grad)
                yield (
                    self._say(
                        f"{owner} {key!r}" if owner.startswith("the ") else f"{key!r} of {owner}",
                        key,
                        value,
                        now,
                    ),
                    kept,
                )
        cells = zip(self._cells, self._cell_names, self._contents, strict=True)
        for i, (cell, name, value) in enumerate(cells):
            now = _contents(cell)
            if _same(now, value):
                self._contents[i] = now
            else:
                yield self._say(name, name.split("'")[1], value, now), False
        for place, size in zip(self._sized, self._sizes, strict=True):
            if len(place) != size:
                owner = next(o for p, _, o in self.reach.places if p is place)
                yield f"{owner} has {len(place)} elements in place of {size}", False
        for o, n, value, name in self._fields:
            if not _same(getattr(o, n, _GONE), value):
                yield self._say(name, n, value, getattr(o, n, _GONE)), False
        for keys, names, owner in self._absent:
            for n in sorted(names):
                if n in keys:
                    yield (
                        f"{n!r} of {owner} was its class's and is the object's own{self.ran.where(n)}",
                        False,
                    )
        yield from (("a set", False) for s, kept in self._sets if s != kept)
        yield from ((f"the array {name}", False) for a, kept, name in self._arrays if a.tobytes() != kept)
        for p, flag in zip(self._trained, self._flags, strict=True):
            if p.requires_grad != flag:
                yield f"a parameter {tuple(p.shape)} has requires_grad={p.requires_grad} now", True
        if ambient() != self._ambient:
            yield "torch's default dtype, gradient mode or autocast, or the handlers around", False

    def _say(self, what: str, key: Any, value: Any, now: Any) -> str:
        return f"{what} was {_show(value)} and is {_show(now)}{self.ran.where(key) if isinstance(key, str) else ''}"

    def refuse(self) -> str | None:
        """Why no comparison can show whether this program is as it was; None where one can."""
        if self.reach.full:
            return "it can reach more of Python's objects than can be compared at each step"
        clocks = sorted(CLOCKS & self.ran.names & _modules_named(self.ran))
        if clocks:
            return (
                f"it uses the module {clocks[0]!r}, whose values no graph can know{self.ran.where(clocks[0])}"
            )
        if self.reach.opaque:
            name = self.reach.opaque[0]
            return f"it reads {name!r}, which gives something else each time{self.ran.where(name.split('.')[-1])}"
        large = [(a, name) for a, name in self.reach.arrays if a.nbytes > SMALL]
        if large:
            array, name = large[0]
            where = self.ran.where(name.split(".")[-1])
            return f"it reads {name!r}, a NumPy array of shape {array.shape}{where}; try a tensor"
        return None


def handlers() -> int:
    """Number of Pyro's handlers that are active."""
    return len(runtime._PYRO_STACK)


def ambient() -> tuple[Any, ...]:
    """What torch itself makes a program depend on."""
    autocast = torch._C._is_any_autocast_enabled()
    return torch.get_default_dtype(), torch.is_grad_enabled(), autocast, handlers()


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
        reach = Reach(Ran(None)).start(roots)
        self._tensors = (
            [(t, t._version, t.detach().clone()) for t in reach.tensors.values()] if tensors else []
        )
        self._classes, self._library = reach.classes, reach.library
        places = {id(p): (p, name) for p, _, name in reach.places} | {
            id(p): (p, "Pyro's store") for p in more
        }
        self._kept = [(p, dict(p) if hasattr(p, "keys") else type(p)(p), name) for p, name in places.values()]
        self._fields = [(o, n, getattr(o, n, _GONE), name) for o, n, name in reach.fields]

    def restore(self) -> list[tuple[str, str, tuple[int, Any] | None]]:
        """Puts all back; returns owner and key of what had changed, and its place where it is a library's."""
        found: list[tuple[str, str, tuple[int, Any] | None]] = []
        for tensor, version, value in self._tensors:
            if tensor._version != version:
                with torch.no_grad():
                    tensor.copy_(value)
        for place, kept, name in self._kept:
            if hasattr(place, "keys"):
                keys = [k for k in {**kept, **place} if not _same(place.get(k, _GONE), kept.get(k, _GONE))]
                owner = self._classes.get(id(place))
                for key in keys:
                    found.append((name, str(key), (id(place), key) if id(place) in self._library else None))
                    _put(place if owner is None else owner, key, kept.get(key, _GONE), owner is not None)
            elif len(place) != len(kept) or any(a is not b for a, b in zip(place, kept, strict=True)):
                found.append((name, "", None))
                place.clear()
                place.update(kept) if isinstance(place, set) else place.extend(kept)
        for o, n, value, name in self._fields:
            if not _same(getattr(o, n, _GONE), value) and value is not _GONE:
                found.append((name, n, None))
                setattr(o, n, value)
        return found


def _put(place: Any, key: Any, value: Any, attribute: bool) -> None:
    if attribute:
        delattr(place, key) if value is _GONE else setattr(place, key, value)
    elif value is _GONE:
        del place[key]
    else:
        place[key] = value


_GONE = type("Gone", (), {"__repr__": lambda self: "gone"})()


def _keys(place: Any, keys: tuple[Any, ...] | None) -> Iterable[Any]:
    if isinstance(place, set | frozenset):
        return ()
    if keys is not None:
        return [k for k in keys if k in place] if hasattr(place, "keys") else keys
    return list(place) if hasattr(place, "keys") else range(len(place))


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _GONE


def _same(now: Any, before: Any) -> bool:
    """The same object, or a plain value equal to it (nan is nan, and 1 is not True)."""
    if now is before:
        return True
    plain = type(now) is type(before) and isinstance(now, PLAIN)
    return plain and (bool(now == before) or (now != now and before != before))


def _show(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    text = repr(value) if isinstance(value, PLAIN) or value is _GONE else f"a {type(value).__name__}"
    return text if len(text) <= 40 else text[:37] + "..."


def _modules_named(ran: Ran) -> set[str]:
    """Names in the code that ran that stand for a module of that name."""
    return {
        value.__name__
        for code, space in ran.code or ()
        for name in code.co_names
        for value in (space.get(name),)
        if isinstance(value, types.ModuleType)
    }
