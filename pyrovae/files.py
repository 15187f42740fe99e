"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What a file may claim to hold, before it is read: so many bytes, or so many times its own size. Deflated zeros take a
# thousandth of their room, and a header nothing at all.
HARMLESS = 1 << 28
INFLATED = 100


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it is synced and takes its place.

    On an error nothing of it remains, and a former file at `path` is untouched. A link at `path` is replaced, and what
    it points to is untouched.

    Raises:
        OSError: where the folder does not exist or cannot be written.
    """
    target = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{target.stem}-", suffix=target.suffix, dir=target.parent)
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        with partial.open("rb+") as f:
            os.fsync(f.fileno())
        # mkstemp makes files private; a result is as readable as any other file of the user's.
        mask = os.umask(0)
        os.umask(mask)
        partial.chmod(0o666 & ~mask)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike[str], content: str | bytes | memoryview) -> None:
    """Writes text (as UTF-8) or bytes in one go: libraries that write for themselves crash on a full disk.

    Raises:
        OSError: where it cannot be written; a former file at `path` is untouched.
    """
    whole = content.encode("utf-8") if isinstance(content, str) else content
    try:
        with replacing(path) as partial:
            partial.write_bytes(whole)
    except OSError as error:  # of the file that was asked for, and not of the temporary one beside it
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Tells before any work is done whether files can be written into a folder, by writing one.

    Raises:
        OSError: naming the folder.
    """
    try:
        with tempfile.NamedTemporaryFile(prefix=".probe-", dir=folder) as f:
            f.write(bytes(4096))
            f.flush()
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(folder)) from None


def check_claim(path: str | os.PathLike[str], claimed: int) -> None:
    """Refuses a file whose arrays would fill the memory, before any of them is read.

    Args:
        path: the file.
        claimed: bytes that its headers say are in it, once they are inflated.

    Raises:
        ValueError: for more than this machine has, or than an honest file of that size holds.
    """
    size = os.stat(path).st_size
    if claimed > max(HARMLESS, INFLATED * size):
        raise ValueError(
            f"expected arrays of about the size of their file, got {os.fspath(path)} of {size:,} bytes, which claims "
            f"to hold {claimed:,}; where that is right, try to write it without compression"
        )
    check_fits(path, claimed)


def check_fits(path: str | os.PathLike[str], claimed: int) -> None:
    """Refuses arrays that would fill the memory, before they are made.

    Raises:
        ValueError: for more than this machine has.
    """
    if claimed > _memory():
        raise ValueError(
            f"expected arrays that fit into {_memory():,} bytes of memory, got {os.fspath(path)}, which claims "
            f"to hold {claimed:,}; try fewer data"
        )


def _memory() -> int:
    """Bytes of this machine's memory; without end where it does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 1 << 62


def expanded(path: str | os.PathLike[str]) -> Path:
    """The path with `~` and `~name` written out.

    Raises:
        ValueError: for a user without a home folder, as containers have.
    """
    whole = os.path.expanduser(path)
    if os.fspath(whole).startswith("~") and not os.path.lexists(whole):
        raise ValueError(
            f"expected a home folder for {os.fspath(path)!r}, got none; try a path without ~, or set HOME"
        )
    return Path(whole)
