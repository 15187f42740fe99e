"""Ctrl-C while torch is imported: one line, for a command; what merely imports pyrovae is left as it is."""

from __future__ import annotations

import functools
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

_former: dict[int, Any] = {}


def _begin() -> None:
    """Lets Ctrl-C and SIGTERM end a command with one line, until `done`: before there is anything to keep.

    Raised as an exception, a library that is being imported may swallow it.
    """
    if not _is_command() or threading.current_thread() is not threading.main_thread():
        return
    for number, words in ((signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            _former[number] = signal.signal(number, functools.partial(_leave, words))


def done() -> None:
    """Gives the signals back."""
    while _former:
        signal.signal(*_former.popitem())


def _leave(words: str, number: int, _: FrameType | None) -> NoReturn:
    os.write(2, f"{words}\n".encode())
    os._exit(128 + number)


def _is_command() -> bool:
    """Whether this process is `pyrovae ...`, `python -m pyrovae ...`, `python inference/x.py ...` or `python -m
    pyrovae.inference.x ...`."""
    # A worker of `compare` has its command's arguments, and ends by SIGTERM when the work is done.
    if "--multiprocessing-fork" in sys.orig_argv:
        return False
    first = sys.argv[0] if sys.argv else ""
    if first == "-m":  # as it is while the packages around the module are imported
        module = sys.orig_argv[sys.orig_argv.index("-m") + 1]
        return module == "pyrovae" or module.startswith("pyrovae.inference.")
    file = Path(str(getattr(sys.modules.get("__main__"), "__file__", None) or first))
    if file.stem == "pyrovae" or file.parts[-2:] == ("pyrovae", "__main__.py"):
        return True
    return file.parent.name == "inference" and file.with_name("cli.py").is_file()


_begin()
