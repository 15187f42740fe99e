"""Functions whose arguments are checked before they run."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from .arrays import as_tensors
from .kinds import KINDS

P = ParamSpec("P")
R = TypeVar("R")


def checked(fn: Callable[P, R]) -> Callable[P, R]:
    """Checks the arguments whose names are in `KINDS` before `fn` runs; numpy arrays become tensors.

    None passes where it is the default.

    Raises:
        TypeError, ValueError: "expected ..., got ...; try ...".
    """
    signature = inspect.signature(fn)

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
        return fn(*bound.args, **bound.kwargs)

    return call
