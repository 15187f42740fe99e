"""Code of a user's that a program runs, and the lines of it that are to blame."""

from __future__ import annotations

import dis
import re
import sys
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from .trust import trusted

# Texts of more letters name nothing: descriptions.
_SHORT = 200
_WORD = re.compile(r"[^\W\d]\w*")
_BY_NAME = {"__dict__", "vars", "getattr", "globals", "locals", "__getattribute__", "getattr_static"}


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
        handed: by id, objects that functions of Python's library were given.

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
        self.handed: dict[int, Any] = getattr(code, "handed", {})
        self.ids = {id(c) for c, _ in code or ()}
        self.names: set[str] = set()
        self.words: set[str] = set()
        for c, _ in code or ():
            found = list(texts(c.co_consts))
            self.names.update(c.co_names, found)
            # "{0.beta}", attrgetter("config.beta")
            self.words.update(w for text in found if len(text) < _SHORT for w in _WORD.findall(text))
        self.words.update(w for text in getattr(code, "formats", ()) for w in _WORD.findall(text))
        # vars(self)[name], getattr(self, name): names that no code shows
        self.any_name = code is None or bool(self.names & _BY_NAME) or getattr(code, "by_name", False)

    def reads(self, name: Any) -> bool:
        """Whether code that ran may read an attribute or a key of this name."""
        return self.any_name or not isinstance(name, str) or name in self.names or name in self.words

    def reads_of(self, owner: Any, names: Iterable[Any]) -> list[Any]:
        """Names that code which ran may read of an object; all, where a library was handed it."""
        return list(names) if id(owner) in self.handed else [n for n in names if self.reads(n)]

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


def texts(constants: tuple[Any, ...] | frozenset[Any]) -> Iterator[str]:
    """Yields texts among constants of code: a `match` holds the attributes of a class in tuples."""
    for constant in constants:
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, tuple | frozenset):
            yield from texts(constant)
