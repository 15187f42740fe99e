"""Programs that a fit has trained, and what is run of them without it."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pyro
import torch

from .layers import layers
from .parameters import ParameterStore, store_of

# A program's function (or its object) to the stores of the fits that trained it.
_KNOWN: weakref.WeakKeyDictionary[Any, weakref.ref[ParameterStore]] = weakref.WeakKeyDictionary()


def remember(store: ParameterStore, *programs: Callable[..., Any]) -> None:
    """Keeps in mind that a fit trained these programs in its own store."""
    for fn in programs:
        try:
            _KNOWN[_owner(fn)] = weakref.ref(store)
        except TypeError:  # what has no weak references cannot be told again
            continue


def store_that_trained(*programs: Callable[..., Any]) -> ParameterStore | None:
    """The store of the last fit of one of these programs, if it is still there."""
    for fn in programs:
        try:
            found = _KNOWN.get(_owner(fn))
        except TypeError:
            continue
        store = None if found is None else found()
        if store is not None:
            return store
    return None


def warn_untrained(*programs: Callable[..., Any]) -> None:
    """Warns once where trained modules are run with `pyro.param`s that are not the trained ones."""
    if any(store_of(fn) is not None for fn in programs):
        return
    store = store_that_trained(*programs)
    if store is None or getattr(store, "told", False):
        return
    other = differing(pyro.get_param_store()._params, store.own())
    if other:
        store.told = True  # type: ignore[attr-defined]  # a note on the store
        warnings.warn(
            f"a fit has trained this program, and its values of {other} are in the fit's own store, not in the one "
            "that is active: they are those of no training here; try fit.model and fit.guide, or fit.to_global_store()",
            stacklevel=4,
        )


def warn_anew(store: ParameterStore, *programs: Callable[..., Any]) -> None:
    """Says that a fit starts its `pyro.param`s anew, where the active store, or an earlier fit, has others."""
    earlier = store_that_trained(*programs)
    if earlier is not None and earlier is not store:
        found, whose = differing(store.own(), earlier.own()), "an earlier fit"
        hint = "pv.fit(fit.model, fit.guide, ...)"
    else:
        found, whose = differing(store.own(), pyro.get_param_store()._params), "Pyro's active store"
        hint = "store = pv.ParameterStore.of_active(); pv.fit(store.bind(model), store.bind(guide), ...)"
    if found:
        warnings.warn(
            f"this fit starts {found} anew, in a store of its own: {whose} has other values of them; to go on from "
            f"those, try {hint}",
            stacklevel=4,
        )


def differing(here: Any, there: Any) -> list[str]:
    """Names of tensors in both, of one shape and other values."""
    return [
        name
        for name, value in here.items()
        if name in there
        and value.shape == there[name].shape
        and not torch.equal(value.detach().cpu(), there[name].detach().cpu())
    ]


def _owner(fn: Any) -> Any:
    last = layers(fn)[-1]
    return getattr(last, "__self__", last)
