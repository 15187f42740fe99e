"""Who is at a shared evaluation: the last one to leave removes the partial results that all have put together."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

BEATS = 4  # signs of life before one counts as dead
SUFFIX = ".here"


class Attendance:
    """A file of this process's in the folder of partial results, touched again and again while it is there.

    Args:
        folder: of partial results; its own clock counts.
        expiry: seconds without a sign of life after which another process counts as dead.
    """

    def __init__(self, folder: Path, expiry: float) -> None:
        self.folder, self.expiry = folder, expiry
        self._own = folder / f".{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}{SUFFIX}"

    def sign(self) -> float:
        """Shows that this process lives; returns the folder's time."""
        self._own.touch()
        return self._own.stat().st_mtime

    def leave(self) -> bool:
        """Goes; whether nobody else is there."""
        now = self.sign()
        self._own.unlink(missing_ok=True)
        others = []
        for path in self.folder.glob(f".*{SUFFIX}"):
            with contextlib.suppress(FileNotFoundError):
                age = abs(now - path.stat().st_mtime)
                others += [path] * (age < self.expiry)
        return not others


@contextmanager
def attending(folder: Path, expiry: float) -> Iterator[Attendance]:
    """Marks this process as being at the evaluation whose partial results are in `folder`, in the body."""
    folder.mkdir(parents=True, exist_ok=True)
    here, done = Attendance(folder, expiry), threading.Event()
    here.sign()

    def beat() -> None:
        while not done.wait(expiry / BEATS):
            with contextlib.suppress(OSError):
                here.sign()

    thread = threading.Thread(target=beat, daemon=True, name="attendance")
    thread.start()

    try:
        yield here
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(OSError):
            here.leave()
        with contextlib.suppress(OSError):
            folder.rmdir()  # where nothing is left in it


def remove(parts: Collection[Path], here: Attendance | None, patience: float = 0.0) -> None:
    """Removes partial results that have been put together and kept, unless others may still need them.

    Args:
        parts: their files.
        here: of a shared evaluation.
        patience: seconds that the others have to leave, where this process alone keeps what all have found.
    """
    until = time.monotonic() + patience
    while here is not None and not here.leave():
        if time.monotonic() > until:
            return
        time.sleep(0.1)
    for part in parts:
        part.unlink(missing_ok=True)
        # What `evaluate --status` tells of them.
        part.with_name(f"{part.name.partition('-')[0]}.json").unlink(missing_ok=True)
    for folder in {part.parent for part in parts}:
        with contextlib.suppress(OSError):
            folder.rmdir()
