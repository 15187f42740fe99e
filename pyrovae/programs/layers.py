"""A program inside of its handlers, decorators and bound stores."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from pyro.poutine.messenger import _bound_partial

Program = Callable[..., Any]


def layers(fn: Any) -> list[Any]:
    """`fn` and what is inside of its handlers, decorators and bound stores, the program itself last."""
    found = [fn]
    while True:
        if isinstance(fn, _bound_partial):  # partial(_context_wrap, handler, fn)
            inner = fn.func
            fn = inner.args[1] if isinstance(inner, functools.partial) else inner
        elif hasattr(fn, "__wrapped__"):
            fn = fn.__wrapped__
        else:
            return found
        found.append(fn)


def around(fn: Program, run: Program) -> Program:
    """`run`, which stands for the program `fn`: its name, its declaration and its parameter store are those of `fn`."""
    named = functools.wraps(fn, updated=())(run)
    store = getattr(fn, "pyrovae_store", None)
    if store is not None:
        named.pyrovae_store = store  # type: ignore[attr-defined]  # a note on the function
    return named
