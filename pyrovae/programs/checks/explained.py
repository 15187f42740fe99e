"""Failures of a program's first run, as errors that name its arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor

# What a program can fail with on arguments that are not for it.
FAILURES = (
    *(RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, ArithmeticError),
    AssertionError,  # of the program, or of a library that it calls
)

# What Pyro says of a law whose last dim is of one datum, and was not declared so.
_PLATE = re.compile(r"Shape mismatch inside plate\('(.+?)'\) at site (\S+) dim (-?\d+), (\d+) vs (\d+)")

# By whether x is on a CPU.
_CPU = {
    True: "or x.to(...) of the program's device",
    False: "or all on a CPU, by device='cpu' where a run is loaded, and by --device cpu",
}

_TWICE = re.compile(r"Multiple sample sites named '(.+?)'")


@contextmanager
def explained(x: Tensor, context: Sequence[Any]) -> Iterator[None]:
    """Turns what a program fails with, in its first run, into an error that names its arguments.

    Raises:
        ValueError: from the program's own error, which is its cause.
    """
    try:
        yield
    except FAILURES as error:
        text = str(error).strip().split("\n")[0]
        # Torch has errors that begin like ours: "expected m1 and m2 to have the same dtype, but got: ...".
        if (
            text.startswith("expected ")
            and "but got" not in text
            and isinstance(error, ValueError | TypeError)
        ):
            if str(error) == text:
                raise
            raise ValueError(text) from error  # Pyro has added the shapes of all sites
        shapes = _PLATE.search(text)
        if shapes is not None:
            plate, site, _, size, got = shapes.groups()
            if int(got) == len(x) != int(size):
                raise ValueError(
                    f"expected the plate {plate!r} to hold the len(x) = {got} data, or to pick a subsample of the rows "
                    f"of x, got one of {size} at {site!r}; try pyro.plate({plate!r}, len(x))"
                ) from error
            raise ValueError(
                f"expected a law of {site!r} with one row per datum in the plate {plate!r} (size {size} here), got "
                f"{got} in the plate's dim; try .to_event(1) on the law, if these {got} are of one datum, in model and "
                "guide"
            ) from error
        twice = _TWICE.search(text)
        if twice is not None:
            name = twice.group(1)
            raise ValueError(
                f"expected a name of its own for every site and plate, got {name!r} twice in one program; try to open "
                f"one plate object again (data = pyro.plate({name!r}, ...), and `with data:` twice), or two names"
            ) from error
        hint = "to call guide(x, ...) and model(x, ...) by themselves"
        if "dtype" in text or "scalar type" in text:
            hint = "one dtype for x, its context and all modules: x.float(), module.float()"
        elif "same device" in text or "device type" in text:
            hint = (
                "one device for x, its context, all modules and each tensor that the program makes or holds: "
                "module.to(x.device), torch.zeros(2, device=x.device), pyro.clear_param_store() where parameters of an "
                f"earlier run lie elsewhere; {_CPU[x.device.type == 'cpu']}"
            )
        more = f" and {len(context)} more argument(s)" if context else ""
        raise ValueError(
            f"expected a model and a guide that run on x of shape {tuple(x.shape)} ({x.dtype}, {x.device}){more}, got "
            f"{type(error).__name__}: {text}; try {hint}"
        ) from error
