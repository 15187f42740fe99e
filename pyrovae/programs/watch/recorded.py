"""Records what of a user's ran: code, and objects that were handed to functions of Python's library."""

from __future__ import annotations

import builtins
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .trust import LIBRARIES, PLAIN, trusted

# They read attributes under names that no code shows.
_BY_NAME = {id(f): f for f in (builtins.vars, builtins.getattr, builtins.globals, builtins.locals)}


class Recorded(list[tuple[types.CodeType, dict[str, Any]]]):
    """Code of a user's that ran, with its globals.

    Attributes:
        handed: by id, objects that a function of Python's library was given: it may read all of them.
        by_name: attributes were read by a name that came up as it ran.
        formats: texts that values were written into: "{0.beta}".
    """

    def __init__(self) -> None:
        super().__init__()
        self.handed: dict[int, Any] = {}
        self.by_name = False
        self.formats: set[str] = set()

    def note_call(self, called: Any) -> None:
        """Notes a call of a function in C that reads attributes."""
        if id(called) in _BY_NAME:
            self.by_name = True
        text = getattr(called, "__self__", None)
        if isinstance(text, str) and called.__name__ in ("format", "format_map"):
            self.formats.add(text)

    def hand_over(self, frame: types.FrameType) -> None:
        """Notes the objects among the arguments of a call."""
        for value in frame.f_locals.values():
            rest = value if type(value) in (tuple, list) else value.values() if type(value) is dict else ()
            for given in (value, *rest):
                if not isinstance(given, (*PLAIN, type, types.FunctionType)):
                    self.handed[id(given)] = given


@contextmanager
def recording() -> Iterator[Recorded]:
    """Yields what holds, after the body, the code of a user's that ran in it."""
    found = Recorded()
    known: dict[int, types.CodeType] = {}
    former: Any = sys.getprofile()

    def note(frame: types.FrameType, event: str, called: Any) -> None:
        if event == "c_call":
            if not trusted(frame.f_globals.get("__name__")):
                found.note_call(called)
            return
        if event != "call":
            return
        name = str(frame.f_globals.get("__name__"))
        if trusted(name):
            if name.partition(".")[0] not in LIBRARIES and _is_users(frame.f_back):
                found.hand_over(frame)
        elif id(frame.f_code) not in known:
            known[id(frame.f_code)] = frame.f_code
            # What a library imports late runs in full, once; eval() runs a module's code, too.
            if frame.f_code.co_name != "<module>" or frame.f_code.co_filename.startswith("<"):
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


def _is_users(frame: types.FrameType | None) -> bool:
    """Whether a user's code calls, or Python's library does on its behalf."""
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        if not trusted(name):
            return True
        if name.partition(".")[0] in LIBRARIES:
            return False
        frame = frame.f_back
    return False
