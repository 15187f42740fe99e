"""Work done side by side in processes of its own: one that fails is one result, and none outlives its parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

READY = b"ready"


class NotStarted(RuntimeError):
    """A process that could not begin: its start has failed, or what it was given is not found there."""


@dataclass(frozen=True)
class _Unread:
    """Why a process could not read what it was given."""

    reason: str


def plain_reason(error: BaseException) -> str:
    """The error in one line."""
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return kind + " ".join(str(error).split())


@dataclass(frozen=True)
class Failure:
    """Why a piece of work gave no result."""

    reason: str


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_side_by_side(
    work: Callable[[Any], Any],
    items: Sequence[Any],
    jobs: int,
    threads: int = 1,
    reason: Callable[[BaseException], str] = plain_reason,
) -> Generator[tuple[Any, Any], None, None]:
    """Yields `(item, work(item))` as they end, `jobs` at a time; a `Failure` in place of a result that there is not.

    Close the generator (`contextlib.closing`): its processes are ended at once then.

    Args:
        work: a function of a module, so that other processes find it.
        items: what it is called with, in this order.
        jobs: processes; 1 is this one.
        threads: of each process.
        reason: says why a piece of work has failed; a function of a module.

    Raises:
        NotStarted: no process begins, as in a script that starts them where it is imported, or they do not find what
            they are given.
    """
    if jobs == 1:
        for item in items:
            yield item, _attempt(work, item, reason)
        return
    # Spawn: a forked torch with live thread pools can hang.
    context = multiprocessing.get_context("spawn")
    # Plain bytes: torch would pass tensors as shared file descriptors, gone once the process is.
    task = pickle.dumps((work, reason))
    left = list(items)
    busy: dict[Connection, tuple[Any, Any]] = {}

    def start() -> Connection:
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, task, threads))
        process.start()
        there.close()  # so that its end is seen here
        processes[here] = process
        return here

    def give(to: Connection) -> None:
        item = left.pop(0)
        busy[to] = item
        # One that has ended already is met where its answer is awaited.
        with contextlib.suppress(ConnectionError):
            to.send_bytes(pickle.dumps(item))

    processes: dict[Connection, Any] = {}
    started = False
    try:
        for _ in range(min(jobs, len(left))):
            give(start())
        while busy:
            for connection in wait(list(busy)):
                assert isinstance(connection, Connection)
                try:
                    message = connection.recv_bytes()
                    if message == READY:
                        started = True
                        continue
                except (EOFError, OSError):
                    process = processes.pop(connection)
                    process.join()
                    if not started and (process.exitcode or 0) > 0:  # an error, and not the system's doing
                        words = _ended(process.exitcode)
                        raise NotStarted(
                            f'{words} before it took any work; in a script, start below if __name__ == "__main__":'
                        ) from None
                    item, result = busy.pop(connection), Failure(_ended(process.exitcode))
                    connection.close()
                    if left:
                        give(start())
                else:
                    item, result = busy.pop(connection), pickle.loads(message)
                    if isinstance(result, _Unread):
                        raise NotStarted(result.reason)
                    if left:
                        give(connection)
                yield item, result
    finally:
        for connection, process in processes.items():
            connection.close()
            process.terminate()
        for process in processes.values():
            process.join(5)
            if process.is_alive():
                process.kill()
                process.join()


def _attempt(work: Callable[[Any], Any], item: Any, reason: Callable[[BaseException], str]) -> Any:
    try:
        return work(item)
    except Exception as error:
        return Failure(reason(error))


def _ended(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        name = signal.Signals(-exitcode).name
        return f"its process was ended by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"its process ended with code {exitcode}"


def _serve(connection: Connection, task: bytes, threads: int) -> None:
    # Ctrl-C goes to all processes of a terminal: the parent has it and ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    connection.send_bytes(READY)
    while True:
        try:
            message = connection.recv_bytes()
        except (EOFError, OSError):
            return
        try:
            (work, reason), item = pickle.loads(task), pickle.loads(message)
        except Exception as error:  # as of what its parent has defined in no module
            connection.send_bytes(pickle.dumps(_Unread(plain_reason(error))))
            continue
        connection.send_bytes(pickle.dumps(_attempt(work, item, reason)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
