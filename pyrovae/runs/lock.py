"""A lock on a run folder: one process writes there, and another one is told which."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from ..json_files import parse_json
from ..text import visible

try:
    import fcntl
except ImportError:  # not on Windows, which has no locks that end with their process
    fcntl = None  # type: ignore[assignment]  # Windows has none

LOCK = ".lock"


class FolderInUse(FileExistsError):
    """Another process that is alive writes into the folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder's lock, a file that names pid, host and start time.

    The system releases the lock of a process when it ends, however it ends; what a killed one leaves behind is taken
    over.

    Raises:
        FolderInUse: another process holds it, naming it.
        OSError: the file cannot be made.
    """
    if fcntl is None:
        yield
        return
    path = folder / LOCK
    handle = _acquire(path)
    try:
        about = {"pid": os.getpid(), "host": socket.gethostname()}
        about["since"] = datetime.now().astimezone().isoformat(" ", "seconds")
        os.ftruncate(handle, 0)
        # A full disk may leave it empty; the lock holds all the same.
        with contextlib.suppress(OSError):
            os.pwrite(handle, json.dumps(about).encode(), 0)
        yield
    finally:
        # Before it is released: whoever waits for this very file sees that it has gone.
        path.unlink(missing_ok=True)
        os.close(handle)


def _acquire(path: Path) -> int:
    while True:
        # No link is followed: a folder of somebody else's may hold one.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        if os.fstat(handle).st_nlink > 1:  # another name of some file of the user's: an archive may bring one
            os.close(handle)
            path.unlink()
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            about = os.pread(handle, 1000, 0)
            os.close(handle)
            raise FolderInUse(
                f"expected {path.parent} to be in use by this process alone, got one that writes there: "
                f"{_holder(about)}; try another --out, or wait for it"
            ) from None
        except OSError:  # a file system without locks
            return handle
        try:
            if os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False)):
                return handle
        except FileNotFoundError:
            pass
        os.close(handle)  # of a process that ended just now, and took its file along


def _holder(about: bytes) -> str:
    try:
        found = parse_json(about)
        return visible(f"pid {int(found['pid'])} on {found['host']}, since {found['since']}")
    except (ValueError, KeyError, TypeError):
        return "a process that has just started"
