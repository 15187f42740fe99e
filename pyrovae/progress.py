"""Progress of long calls: a bar in a terminal and in a notebook where somebody watches, silence elsewhere."""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, Protocol, TypeVar

from .pages.tables import escaped

P = ParamSpec("P")
R = TypeVar("R")

Listener = Callable[[int, int], None]
# Of a public function: True: a bar where somebody watches; False or None: none; or a function of (done, total).
Progress = Listener | bool | None

DELAY = 0.5  # seconds before a bar comes: short calls have none
PAUSE = 0.2  # seconds from one picture of it to the next

_silent: ContextVar[bool] = ContextVar("pyrovae_silent", default=False)


class Bar(Protocol):
    """Display of how far a call has come."""

    def show(self, done: float, total: float, note: str) -> None:
        """Shows it."""

    def close(self) -> None:
        """Takes it away."""


@contextmanager
def silenced() -> Iterator[None]:
    """Calls in the body show no bars of their own."""
    token = _silent.set(True)
    try:
        yield
    finally:
        _silent.reset(token)


def listener(progress: Progress) -> Listener | None:
    """The function that a caller gave, if it is one."""
    return None if isinstance(progress, bool) else progress


def shows_progress(description: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function with a keyword `progress`: it is given a function of (done, total), or None.

    Where `progress` is True (the default) that function draws a bar, if somebody watches; what is called within shows
    none of its own.
    """

    def decorate(fn: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(fn)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with shown(kwargs.get("progress", True), description) as tell:  # type: ignore[arg-type]  # a Progress, as of fn
                kwargs["progress"] = tell
                return fn(*args, **kwargs)

        return call

    return decorate


@contextmanager
def shown(progress: Progress, description: str) -> Iterator[Callable[..., None] | None]:
    """Yields what tells of progress, as `tell(done, total)` or, of a bar, `tell(done, total, note)`; None: nothing."""
    if progress is not True:
        with silenced():
            yield progress or None
        return
    make = None if _silent.get() else _kind()
    if make is None:
        yield None
        return
    started, last = time.monotonic(), 0.0
    bar: Bar | None = None

    def tell(done: float, total: float, note: str = "") -> None:
        nonlocal bar, last
        now = time.monotonic()
        if now - started < DELAY or now - last < PAUSE:
            return
        last = now
        if bar is None:
            bar = make(description)
        bar.show(done, total, note)

    try:
        with silenced():
            yield tell
    finally:
        if bar is not None:
            bar.close()


def _kind() -> Callable[[str], Bar] | None:
    """The bar that fits; None where nobody watches, or where another process or thread is the one to show it."""
    if multiprocessing.parent_process() is not None or os.environ.get("RANK", "0") != "0":
        return None
    if threading.current_thread() is not threading.main_thread():
        return None
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    if getattr(shell, "kernel", None) is not None:
        return NotebookBar
    try:
        watched = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):  # closed, or in a program without a terminal
        watched = False
    return TerminalBar if watched else None


class TerminalBar:
    """A line of a terminal, on stderr, that is gone at the end."""

    def __init__(self, description: str) -> None:
        from rich import progress as rich
        from rich.console import Console

        self.bar = rich.Progress(
            rich.SpinnerColumn(),
            rich.TextColumn("{task.description}", markup=False),
            rich.BarColumn(),
            rich.TaskProgressColumn(),
            rich.TimeElapsedColumn(),
            rich.TextColumn("ETA"),
            rich.TimeRemainingColumn(),
            rich.TextColumn("{task.fields[note]}", markup=False),
            console=Console(stderr=True),
            transient=True,
        )
        self.task = self.bar.add_task(description, total=None, note="")
        self.bar.start()

    def show(self, done: float, total: float, note: str) -> None:
        """Shows how much is done."""
        self.bar.update(self.task, completed=done, total=total, note=note)

    def close(self) -> None:
        """Takes the line away."""
        self.bar.stop()


class NotebookBar:
    """The browser's own bar in a cell's output, without widgets; gone at the end."""

    def __init__(self, description: str) -> None:
        from IPython.display import HTML, display

        self.html: Any = HTML
        self.description, self.started = description, time.monotonic()
        self.place: Any = display(HTML(""), display_id=True)

    def show(self, done: float, total: float, note: str) -> None:
        """Shows how much is done."""
        seconds = time.monotonic() - self.started
        words = f"{self.description}: {done:,.0f} of {total:,.0f}, {seconds:.0f} s {note}"
        bar = f'<progress value="{float(done)}" max="{float(max(total, 1))}"></progress>'
        self.place.update(self.html(f"<div>{bar} {escaped(words)}</div>"))

    def close(self) -> None:
        """Empties the output."""
        self.place.update(self.html(""))
