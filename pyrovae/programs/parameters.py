"""A home for a program's parameters, apart from Pyro's global store."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from .layers import layers
from .own_memory import OwnMemory


class ParameterStore:
    """One program's parameters. Nothing in it is seen by, or taken from, Pyro's global store.

    Pyro registers `pyro.param`, `pyro.module` and `PyroModule` parameters under their names in
    one store per process, so two programs that both say `pyro.module("decoder", ...)` would
    share (and silently overwrite) each other's parameters. Inside `active()` the process-wide
    store holds this object's parameters only; the former content is put back on leaving.

    Example:
        >>> import pyro, torch
        >>> store = ParameterStore()
        >>> with store.active():
        ...     _ = pyro.param("a", torch.zeros(2))
        >>> store, "a" in pyro.get_param_store()
        (ParameterStore(1 tensors, 2 numbers), False)
    """

    def __init__(self) -> None:
        self._params: dict[str, Tensor] = {}
        self._constraints: dict[str, Any] = {}
        self._names: dict[Tensor, str] = {}
        self._copies: dict[Any, tuple[Tensor, Tensor]] = {}  # of what parameters start at: see `OwnMemory`

    @contextmanager
    def active(self) -> Iterator[None]:
        """Makes this the store that Pyro programs see. Reentrant."""
        # The store's dicts are exchanged, not copied as `scope()` does: that costs time at every
        # step, and drops the link from a parameter to its unconstrained leaf, which the
        # optimizer needs after the program has run.
        store = pyro.get_param_store()
        outer = (store._params, store._constraints, store._param_to_name)
        store._params, store._constraints, store._param_to_name = (
            self._params,
            self._constraints,
            self._names,
        )
        try:
            yield
        finally:
            # pyro.clear_param_store() puts new dicts in place of the old ones.
            tables: list[tuple[Any, Any]] = [
                (self._params, store._params),
                (self._constraints, store._constraints),
                (self._names, store._param_to_name),
            ]
            for own, now in tables:
                if own is not now:
                    own.clear()
                    own.update(now)
            store._params, store._constraints, store._param_to_name = outer

    def bind(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """`fn`, always run with this store active."""

        @functools.wraps(fn, updated=())
        def bound(*args: Any, **kwargs: Any) -> Any:
            with self.active(), OwnMemory(copies=self._copies):
                return fn(*args, **kwargs)

        bound.__qualname__ = getattr(
            fn, "__qualname__", type(fn).__qualname__
        )  # an AutoGuide has no name of its own
        bound.pyrovae_store = self  # type: ignore[attr-defined]  # a note on the function
        return bound

    def to_global(self) -> None:
        """Puts the parameters into Pyro's global store, in place of those of the same names.

        Parameters of modules are the modules' own tensors there too; others are copies.
        """
        target = pyro.get_param_store()
        for name in self._params.keys() & target._params.keys():
            del target[name]
        _copy((self._params, self._constraints), target._params, target._constraints, target._param_to_name)

    @classmethod
    def of_active(cls) -> ParameterStore:
        """A store that starts with the parameters that Pyro's programs see now (copies, but of modules)."""
        store, source = cls(), pyro.get_param_store()
        _copy((source._params, source._constraints), store._params, store._constraints, store._names)
        return store

    def own(self) -> dict[str, Tensor]:
        """Leaves of `pyro.param` by name; those of modules are the modules', whatever the store."""
        return {n: p for n, p in self._params.items() if not isinstance(p, torch.nn.Parameter)}

    def unconstrained(self) -> dict[str, Tensor]:
        """Name to unconstrained leaf tensor, in order of registration."""
        return dict(self._params)

    def __len__(self) -> int:
        return len(self._params)

    def __repr__(self) -> str:
        total = sum(p.numel() for p in self._params.values())
        return f"ParameterStore({len(self)} tensors, {total:,} numbers)"

    def state_dict(self) -> dict[str, Tensor]:
        """Unconstrained values by name, detached; a tensor under several names appears once."""
        seen: set[int] = set()
        out = {}
        for name, value in self._params.items():
            if id(value) not in seen:
                seen.add(id(value))
                out[name] = value.detach()
        return out

    def load_state_dict(self, values: dict[str, Tensor]) -> None:
        """Copies values into the parameters that exist, all of them or none.

        Run the program once before, so that its parameters exist.

        Raises:
            ValueError: naming what is missing, left over or of another shape.
        """
        own = self.state_dict()
        missing, extra = sorted(own.keys() - values.keys()), sorted(values.keys() - own.keys())
        shapes = [
            f"{k}: expected {tuple(own[k].shape)}, got {tuple(values[k].shape)}"
            for k in own
            if k in values and own[k].shape != values[k].shape
        ]
        if missing or extra or shapes:
            parts = [
                text
                for text, found in (
                    (f"missing {missing[:5]}", missing),
                    (f"not in this program {extra[:5]}", extra),
                    ("; ".join(shapes[:5]), shapes),
                )
                if found
            ]
            raise ValueError(
                f"expected weights of this program's {len(own)} parameters, got weights of another "
                f"architecture: {'; '.join(parts)}"
            )
        with torch.no_grad():
            for name, value in values.items():
                self._params[name].copy_(value)


def _copy(source: tuple[Any, Any], params: Any, constraints: Any, names: Any) -> None:
    for name, leaf in source[0].items():
        owned = isinstance(leaf, torch.nn.Parameter)  # a module's: the program brings the same tensor
        own = leaf if owned else leaf.detach().clone().requires_grad_(leaf.requires_grad)
        params[name], names[own], constraints[name] = own, name, source[1][name]


@contextmanager
def scratch(*programs: Callable[..., Any]) -> Iterator[dict[str, tuple[int, ...]]]:
    """Parameters that the programs create in the body are dropped after; yields their shapes then."""
    stores: list[Any] = [pyro.get_param_store(), *(s for s in map(store_of, programs) if s is not None)]
    tables = []
    for store in stores:
        names = store._names if isinstance(store, ParameterStore) else store._param_to_name
        tables.append((store._params, store._constraints, names, set(store._params)))
    created: dict[str, tuple[int, ...]] = {}
    try:
        yield created
    finally:
        for params, constraints, names, before in tables:
            for name in [n for n in params if n not in before]:
                created[name] = tuple(params[name].shape)
                names.pop(params.pop(name), None)
                constraints.pop(name, None)


@contextmanager
def capture_parameters() -> Iterator[dict[str, Tensor]]:
    """Yields a dict that holds, after the body, the leaves of all parameters it used, by name.

    In order of use, which makes optimizer states comparable.
    """
    used: dict[str, Tensor] = {}
    with poutine.trace(param_only=True) as capture:
        yield used
    sites: dict[str, Any] = dict(capture.trace.nodes.items())
    used.update((name, site["value"].unconstrained()) for name, site in sites.items())


def by_leaf(used: dict[str, Tensor]) -> tuple[list[str], list[Tensor]]:
    """Names and detached leaves, each leaf once, under the first of its names."""
    first = {id(leaf): (name, leaf) for name, leaf in reversed(list(used.items()))}
    return [name for name, _ in first.values()], [leaf.detach() for _, leaf in first.values()]


def store_of(fn: Callable[..., Any]) -> ParameterStore | None:
    """The store a bound program carries, if it is bound."""
    stores = (getattr(layer, "pyrovae_store", None) for layer in layers(fn))
    return next((s for s in stores if isinstance(s, ParameterStore)), None)
