"""Errors in the words of who has to mend them: a line on the input, or three on the user's own code."""

from __future__ import annotations

import linecache
import os
import site
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import pyrovae
from pyrovae import inference, models
from pyrovae.text import visible

LONGEST = 1500  # characters of an error that are shown
OURS = tuple(
    str(Path(str(p)).resolve())
    for p in (
        *pyrovae.__path__,
        *models.__path__,
        *inference.__path__,
        sysconfig.get_paths()["stdlib"],
        sysconfig.get_paths()["purelib"],
        sysconfig.get_paths()["platlib"],
        *site.getsitepackages(),
        sys.prefix + "/lib",
    )
)


def one_line(error: BaseException) -> str:
    """The error's text in one line."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return visible(f"{error.strerror}: {os.fsdecode(error.filename)}")
    text = visible(" ".join(str(error).split())) or type(error).__name__
    # What a file holds may be of any length; the remedy comes last.
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 300]} [...] {text[-300:]}"


def show_warnings(prog: str) -> None:
    """Tells warnings as notes of a line, each once; those of the user's own code with its file.

    It replaces what shows them, which `warnings.catch_warnings` puts back.
    """
    said: set[str] = set()

    def show(message: Warning | str, _: type[Warning], file: str, line: int, *__: object) -> None:
        place = f"{file}, line {line}: " if _is_users(file) else ""
        text = f"{place}{visible(' '.join(str(message).split()))}"
        if text not in said:
            said.add(text)
            print(f"{prog}: note: {text}", file=sys.stderr)

    warnings.showwarning = show  # type: ignore[assignment]  # its last two are given by name


def in_users_code(error: BaseException) -> tuple[str, int, str] | None:
    """File, line and function of the user's that the error was raised in, or under; None where it is not theirs."""
    for one in _chain(error):
        if isinstance(one, SyntaxError) and one.filename and _is_users(one.filename):
            return one.filename, one.lineno or 0, "<module>"
        frames = [f for f in _frames(one.__traceback__) if _is_users(f[0])]
        if frames:
            return frames[-1]
    return None


def told(error: BaseException, place: tuple[str, int, str]) -> str:
    """Three lines: where in the user's code, the line itself, and the error."""
    file, line, function = place
    where = "" if function == "<module>" else f", in {function}"
    text = visible(linecache.getline(file, line).strip())
    first = next(_chain(error))
    return f"{file}, line {line}{where}:\n    {text}\n{type(first).__name__}: {one_line(first)}"


def reason_of(error: BaseException) -> str:
    """One line for a table: the error, and where in the user's code it was raised, if it was there."""
    place = in_users_code(error)
    where = "" if place is None else f" ({place[0]}, line {place[1]})"
    if place is not None:
        error = next(_chain(error))  # Pyro raises it again, with the shapes of all sites
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return f"{kind}{one_line(error)}{where}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error's causes, the first one first, and then itself."""
    found = [error]
    while True:
        last = found[-1]
        cause = last.__cause__ or (None if last.__suppress_context__ else last.__context__)
        if cause is None or cause in found:
            break
        found.append(cause)
    yield from reversed(found)


def _frames(traceback: TracebackType | None) -> Iterator[tuple[str, int, str]]:
    while traceback is not None:
        code = traceback.tb_frame.f_code
        yield code.co_filename, traceback.tb_lineno, code.co_name
        traceback = traceback.tb_next


def _is_users(file: str) -> bool:
    # Compiled code of libraries names sources that are not there: pandas/_libs/parsers.pyx.
    if file.startswith("<") or not Path(file).is_file():
        return False
    return not any(Path(os.path.realpath(file)).is_relative_to(p) for p in OURS)
