"""A case that takes too long, or fails, costs its own row and nothing else."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from timing import Row


class OutOfTime(BaseException):
    """Not an Exception: what a run of a case catches must not catch this."""


@contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """Raises OutOfTime in the body after so many seconds (in the main thread, between two lines of Python)."""
    if seconds is None:
        yield
        return

    def stop(*_: Any) -> None:
        raise OutOfTime

    former = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def rows_of(name: str, case: Callable[[], list[Row]], seconds: float | None = None) -> list[Row]:
    """Rows of a case; one that says why where it has none."""
    try:
        with limited(seconds):
            return case()
    except OutOfTime:
        note = f"not done within {seconds:g} s"
    except Exception as error:
        note = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return [Row(name, "the case", "", note=note)]
