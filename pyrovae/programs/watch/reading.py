"""Code of a user's that a program runs, and the lines of it that are to blame."""

from __future__ import annotations

import dis
import sys
import types
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Code of these is taken to keep no state of its own between two steps; the attributes of its objects are watched.
TRUSTED = {
    "torch",
    "pyro",
    "numpy",
    "scipy",
    "opt_einsum",
    "functorch",
    "sympy",
    "mpmath",
    "networkx",
    "pyrovae",
}
# What those rest on, and may import late.
TRUSTED |= {"typing_extensions", "filelock", "fsspec", "jinja2", "markupsafe", "triton", "tqdm", "setuptools"}
TRUSTED |= {"_distutils_hack", "pkg_resources"}
TRUSTED |= sys.stdlib_module_names - {"__main__"}
# What changes by itself: no comparison of values would show it.
CLOCKS = {"random", "time", "datetime", "secrets", "uuid"}
PLAIN = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size, np.generic)


def trusted(module: str | None) -> bool:
    """Whether the code of a module of this name is taken to keep no state."""
    name = (module or "").partition(".")[0]
    return name in TRUSTED or name.startswith(("namedtuple_", "__editable__"))


@contextmanager
def recording() -> Iterator[list[tuple[types.CodeType, dict[str, Any]]]]:
    """Yields a list that holds, after the body, the code of a user's that ran in it, with its globals."""
    found: list[tuple[types.CodeType, dict[str, Any]]] = []
    known: dict[int, types.CodeType] = {}
    former: Any = sys.getprofile()

    def note(frame: types.FrameType, event: str, _: Any) -> None:
        if event == "call" and id(frame.f_code) not in known:
            known[id(frame.f_code)] = frame.f_code
            # What a library imports late runs in full, once.
            if frame.f_code.co_name != "<module>" and not trusted(frame.f_globals.get("__name__")):
                found.append((frame.f_code, frame.f_globals))

    if hasattr(former, "disable"):
        former.disable()
    sys.setprofile(note)
    try:
        yield found
    finally:
        if former is None or callable(former):
            sys.setprofile(former)
        else:  # cProfile's, which is no function
            sys.setprofile(None)
            former.enable()


def place_of(error: BaseException) -> str:
    """ " (file.py, line 12)": the line of a user's in which an error came up; "" where there is none."""
    at, trace = "", error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if not trusted(frame.f_globals.get("__name__")):
            at = f" ({Path(frame.f_code.co_filename).name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return at


def is_of_validation(error: BaseException) -> bool:
    """Whether an error came up where a law of torch checks its parameters, or a value."""
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        module = str(frame.f_globals.get("__name__"))
        if module == "torch.distributions.distribution" and frame.f_code.co_name in _CHECKS:
            return True
        trace = trace.tb_next
    return False


_CHECKS = ("__init__", "_validate_sample")


def place_here() -> str:
    """The same of the line of a user's that is running."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and trusted(frame.f_globals.get("__name__")):
        frame = frame.f_back
    return "" if frame is None else f" ({Path(frame.f_code.co_filename).name}, line {frame.f_lineno})"


class Ran:
    """Code that ran, and the names in it.

    Attributes:
        ignored: (id of a container, key) that libraries write as they run: caches.

    Args:
        code: with its globals, as `recording` finds it; None stands for all code that can be reached.
        values: tensors from outside whose numbers it took into Python.
    """

    def __init__(
        self, code: list[tuple[types.CodeType, dict[str, Any]]] | None, values: Iterable[Tensor] = ()
    ) -> None:
        self.code = code
        self.values = list(values)
        self.ignored: set[tuple[int, Any]] = set()
        self.ids = {id(c) for c, _ in code or ()}
        self.names: set[str] = set()
        for c, _ in code or ():
            self.names.update(c.co_names, (k for k in c.co_consts if isinstance(k, str)))
        # vars(self)[name], getattr(self, name): names that no code shows
        self.any_name = code is None or bool(
            self.names & {"__dict__", "vars", "getattr", "globals", "locals"}
        )

    def reads(self, name: Any) -> bool:
        """Whether code that ran may read an attribute or a key of this name."""
        return self.any_name or not isinstance(name, str) or name in self.names

    def runs(self, code: types.CodeType) -> bool:
        """Whether this code ran."""
        return self.code is None or id(code) in self.ids

    def where(self, name: str) -> str:
        """ " (file.py, line 12)": where a name is read."""
        for code, _ in self.code or ():
            line = code.co_firstlineno
            for instruction in dis.get_instructions(code):
                line = instruction.starts_line or line if sys.version_info < (3, 13) else line
                if sys.version_info >= (3, 13):  # starts_line is a flag there
                    line = instruction.line_number or line
                if instruction.argval == name:
                    return f" ({Path(code.co_filename).name}, line {line})"
        return ""
