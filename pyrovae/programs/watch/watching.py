"""Comparison, at each step and in microseconds, of Python's state with what a traced program took for granted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from operator import attrgetter, contains, getitem, is_
from typing import Any

from torch import Tensor, nn

from .ambient import ambient
from .layouts import Layouts
from .reachable import search
from .reading import Ran
from .snapshot import GONE, equal_parts, same
from .trust import PLAIN
from .unwatchable import SMALL, unwatchable

_cell = attrgetter("cell_contents")
_body = attrgetter("__code__", "__defaults__", "__kwdefaults__")
_requires_grad = attrgetter("requires_grad")
_hooks, _late_hooks = attrgetter("_backward_hooks"), attrgetter("_post_accumulate_grad_hooks")


class Watch:
    """Values that code of a user's reads, as they were: by identity, so that a comparison takes some 40 ns.

    Watched are globals, closures, attributes of objects, classes and modules, elements of dicts and lists, as far
    as code that ran names them; training modes, hooks, parameters and buffers of torch's modules; the parameters'
    place in Pyro's store, and whether they are trained. Values in files, clocks and C objects are not.

    Args:
        ran: the code that ran.
        roots: objects to start from, by name.
        stored: dicts of a parameter store, with the names in them that must stay what they are.
        leaves: parameters, and whether each is trained.
    """

    def __init__(
        self,
        ran: Ran,
        roots: Mapping[str, Any],
        stored: Iterable[tuple[dict[str, Any], Iterable[str]]] = (),
        leaves: Iterable[Tensor] = (),
    ) -> None:
        self.ran = ran
        reach = self.reach = search(ran, roots)
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
        # Most have nothing in them, which is looked at faster.
        self._empty = [p for p in self._sized if not p]
        self._full = [p for p in self._sized if p]
        self._lengths = [len(p) for p in self._full]
        self._sets = [(p, set(p)) for p, _, _ in reach.places if isinstance(p, set | frozenset)]
        self._fields = [(o, n, getattr(o, n), name) for o, n, name in reach.fields if n != "cell_contents"]
        cells = [(o, name) for o, n, name in reach.fields if n == "cell_contents"]
        self._absent = [(own, n, owner) for own, names, owner in reach.absent for n in sorted(names)]
        self._owners, self._free = [own for own, _, _ in self._absent], [n for _, n, _ in self._absent]
        self._cells = [c for c, _ in cells]
        self._cell_names = [name for _, name in cells]
        self._contents = [c.cell_contents for c in self._cells]
        self._objects, self._kinds = reach.objects, list(map(type, reach.objects))
        self._functions, self._bodies = reach.functions, list(map(_body, reach.functions))
        self._arrays = [(a, a.tobytes(), name) for a, name in reach.arrays if a.nbytes <= SMALL]
        self._wholes = [[o, read, read(o), name] for o, read, name in reach.wholes]
        self._numbers = [(t, t.tolist()) for t in ran.values]
        reached = [t for t in reach.tensors.values() if isinstance(t, nn.Parameter)]
        self._trained = list({id(p): p for p in (*leaves, *reached)}.values())
        self._layouts = Layouts(self._trained)
        self._flags = list(map(_requires_grad, self._trained))
        self._seldom = bool(self._fields or self._sets or self._arrays or self._numbers or self._wholes)
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
                and not any(self._empty)
                and list(map(len, self._full)) == self._lengths
                and not any(map(contains, self._owners, self._free))
                and list(map(type, self._objects)) == self._kinds
                and list(map(_body, self._functions)) == self._bodies
                and (self._layouts.hold() or all(map(is_, map(_requires_grad, self._trained), self._flags)))
                and not any(map(_hooks, self._trained))
                and not any(map(_late_hooks, self._trained))
                and ambient() == self._ambient
                and (not self._seldom or self._rest_holds())
            )
        except (KeyError, IndexError, ValueError, RuntimeError):  # gone; or tensors that were compared
            return False

    def _rest_holds(self) -> bool:
        return (
            all(getattr(o, n, None) is v for o, n, v, _ in self._fields)
            and all(s == kept for s, kept in self._sets)
            and all(a.tobytes() == kept for a, kept, _ in self._arrays)
            and all(_are(read(o), kept) for o, read, kept, _ in self._wholes)
            and all(t.tolist() == kept for t, kept in self._numbers)
        )

    def changes(self) -> list[str]:
        """Changes since then, in words, with file and line where code reads them."""
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
                now = GONE
            if same(now, value):
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
            if same(now, value):
                self._contents[i] = now
            else:
                yield self._say(name, name.split("'")[1], value, now), False
        for place, size in zip(self._sized, self._sizes, strict=True):
            if len(place) != size:
                owner = next(o for p, _, o in self.reach.places if p is place)
                yield f"{owner} has {len(place)} elements in place of {size}", False
        for o, n, value, name in self._fields:
            if not same(getattr(o, n, GONE), value):
                yield self._say(name, n, value, getattr(o, n, GONE)), False
        yield from (
            (f"{n!r} of {owner} was its class's and is the object's own{self.ran.where(n)}", False)
            for own, n, owner in self._absent
            if n in own
        )
        yield from (("a set", False) for s, kept in self._sets if s != kept)
        yield from ((f"the array {name}", False) for a, kept, name in self._arrays if a.tobytes() != kept)
        for whole in self._wholes:
            o, read, kept, name = whole
            if equal_parts(read(o), kept):
                whole[2] = read(o)
            else:
                yield f"what is in {name!r}{self.ran.where(name.split('.')[-1])}", False
        yield from (
            (f"a tensor {tuple(t.shape)} whose numbers it takes into Python", False)
            for t, kept in self._numbers
            if t.tolist() != kept
        )
        for o, kind in zip(self._objects, self._kinds, strict=True):
            if type(o) is not kind:
                now = type(o).__name__
                other = f"a {now}" if now != kind.__name__ else f"of another class {now}"
                yield f"an object was a {kind.__name__} and is {other}", False
        for f, body in zip(self._functions, self._bodies, strict=True):
            if not all(map(is_, _body(f), body)):
                yield f"the code or the defaults of {f.__name__!r}", False
        for p, flag in zip(self._trained, self._flags, strict=True):
            if p.requires_grad != flag:
                yield f"a parameter {tuple(p.shape)} has requires_grad={p.requires_grad} now", True
            elif _hooks(p) or _late_hooks(p):
                yield f"a parameter {tuple(p.shape)} has a hook now", True
        if ambient() != self._ambient:
            yield (
                "torch's default dtype, gradient mode or autocast, the handlers around, or hooks of all modules",
                False,
            )

    def _say(self, what: str, key: Any, value: Any, now: Any) -> str:
        before, after = _show(value), _show(now)
        said = f"was {before} and is {after}"
        if before == after:
            said = "is another value" if isinstance(now, PLAIN) else f"is another {after.removeprefix('a ')}"
        return f"{what} {said}{self.ran.where(key) if isinstance(key, str) else ''}"

    def refuse(self) -> str | None:
        """Why no comparison can show whether this program is as it was; None where one can."""
        return unwatchable(self.ran, self.reach, self._trained)


def _keys(place: Any, keys: tuple[Any, ...] | None) -> Iterable[Any]:
    if isinstance(place, set | frozenset):
        return ()
    if keys is not None:
        return [k for k in keys if k in place] if hasattr(place, "keys") else keys
    return list(place) if hasattr(place, "keys") else range(len(place))


def _are(now: Any, kept: Any) -> bool:
    if isinstance(now, bytes):
        return bool(now == kept)
    return len(now) == len(kept) and all(map(is_, now, kept))


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return GONE


def _show(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    text = repr(value) if isinstance(value, PLAIN) or value is GONE else f"a {type(value).__name__}"
    return text if len(text) <= 40 else text[:37] + "..."
