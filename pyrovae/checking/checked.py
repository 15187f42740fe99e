"""Functions whose arguments are checked before they run."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import ParamSpec, TypeVar

from .arrays import as_tensors
from .kinds import KINDS

_PROGRAMS = threading.RLock()  # held by the thread that runs a program

P = ParamSpec("P")
R = TypeVar("R")


def checked(fn: Callable[P, R]) -> Callable[P, R]:
    """Checks the arguments whose names are in `KINDS` before `fn` runs; numpy arrays become tensors.

    None passes where it is the default.

    A function of a model runs in one thread at a time: handlers and parameters of Pyro are the process's, so two
    threads would take sites of each other's.

    Raises:
        TypeError, ValueError: "expected ..., got ...; try ...".
        RuntimeError: as another thread runs a program.
    """
    signature = inspect.signature(fn)
    alone = _alone if "model" in signature.parameters else nullcontext

    @functools.wraps(fn)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            if "guide" in signature.parameters and len(args) > 1 and not callable(args[1]):
                name = f"pv.{fn.__name__}"
                raise TypeError(
                    f"expected model and guide as two arguments of {name}, got a {type(args[1]).__name__} in place of "
                    f"the guide; try {name}(pair.model, pair.guide, ...)"
                ) from None
            return fn(*args, **kwargs)  # which says what is missing or superfluous
        for name, value in bound.arguments.items():
            parameter = signature.parameters[name]
            if parameter.kind is parameter.VAR_POSITIONAL:
                bound.arguments[name] = tuple(as_tensors(v) for v in value)
                if name == "like" and value:  # data of whose shape others are simulated
                    KINDS["x"](bound.arguments[name][0], name, None)
            elif name in KINDS and not (value is None and parameter.default is None):
                bound.arguments[name] = KINDS[name](value, name, parameter.default)
        with alone():
            return fn(*bound.args, **bound.kwargs)

    return call


@contextmanager
def _alone() -> Iterator[None]:
    if not _PROGRAMS.acquire(blocking=False):
        raise RuntimeError(
            "expected one thread that runs programs, got another one at work: handlers and parameters of Pyro are one "
            "set in a process; try processes in place of threads (multiprocessing, joblib), or one call after the other"
        )
    try:
        yield
    finally:
        _PROGRAMS.release()
