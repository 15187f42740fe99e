"""Ctrl-C and SIGTERM between steps instead of in the middle of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


class Terminated(KeyboardInterrupt):
    """SIGTERM, as a machine sends it that shuts down or a scheduler that needs the place."""


@dataclass
class Interrupt:
    """Whether Ctrl-C was pressed (or SIGTERM came), and what it raises."""

    pending: bool = False
    error: type[KeyboardInterrupt] = KeyboardInterrupt


def _terminate(*_: Any) -> None:
    raise Terminated


@contextmanager
def terminable() -> Iterator[None]:
    """Raises `Terminated` on SIGTERM in the body, so that what is unfinished is kept and what was started is ended.

    Does nothing outside of the main thread, or where somebody else handles SIGTERM.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def deferred_interrupt() -> Iterator[Interrupt]:
    """Notes a first Ctrl-C (or SIGTERM, in `terminable`) in the body; a second one raises at once.

    Parameters and optimizer state are then never those of half a step. Does nothing outside of
    the main thread, or where somebody else handles these signals.
    """
    noted = Interrupt()
    handled = {
        signal.SIGINT: (signal.default_int_handler, KeyboardInterrupt),
        signal.SIGTERM: (_terminate, Terminated),
    }
    main = threading.current_thread() is threading.main_thread()
    former = {s: handler for s, (handler, _) in handled.items() if main and signal.getsignal(s) is handler}

    def note(number: int, *_: Any) -> None:
        noted.error = handled[signal.Signals(number)][1]
        if noted.pending:
            raise noted.error
        noted.pending = True

    for number in former:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
