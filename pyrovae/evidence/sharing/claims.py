"""Units of an evaluation that any process may take, wherever it runs: all they share is a folder."""

from __future__ import annotations

import glob
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...files import write_whole
from ...json_files import read_json
from ...text import visible
from .partial_results import Partials

BEATS = 4  # heartbeats before a claim expires


@dataclass(frozen=True)
class Sharing:
    """Declares that an evaluation is shared with other processes.

    Args:
        expiry: seconds without a heartbeat after which the unit of a worker that died is taken by another.
        poll: seconds between two looks at the units of others, when none is left to take.

    Raises:
        ValueError: for times that are not positive.
    """

    expiry: float = 60.0
    poll: float = 1.0

    def __post_init__(self) -> None:
        if not (self.expiry > 0 and self.poll > 0):
            raise ValueError(f"expected expiry and poll > 0 seconds, got {self.expiry} and {self.poll}")


class Claims:
    """Claims on units of work: a file each, that only one process can make.

    A claim is the file `unit.claim-0`, made with O_EXCL; where its maker has died (no heartbeat for
    `expiry` seconds) the next one is `unit.claim-1`, and so on: of several who see it expired one
    makes the next. Nothing is renamed or overwritten, so no race hands a unit to two.

    Args:
        folder: shared; its own clock counts, as of the files in it.
        prefix: of the files' names.
        expiry: see above.
    """

    def __init__(self, folder: Path, prefix: str, expiry: float) -> None:
        self.folder, self.prefix, self.expiry = folder, prefix, expiry
        self.owner = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._clock = folder / f".{prefix}-{self.owner}.clock"
        self._held: dict[str, Path] = {}
        self._lock = threading.Lock()

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Keeps this process's claims alive; gives them up on leaving, but for those of a killed process."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(self.expiry / BEATS):
                with self._lock:
                    for path in self._held.values():
                        try:
                            os.utime(path)
                        except OSError:  # taken over while this process was stopped
                            continue

        thread = threading.Thread(target=beat, daemon=True, name="claims")
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            for part in list(self._held):
                self.release(part)
            self._clock.unlink(missing_ok=True)

    def now(self) -> float:
        """The folder's time: machines' clocks differ."""
        self._clock.touch()
        return self._clock.stat().st_mtime

    def take(self, part: str) -> bool:
        """Claims a unit, unless somebody alive has it."""
        last = self._last(part)
        number = 0
        if last is not None:
            number, path = last
            try:
                # One dated in the future is of a clock that was set back: a maker that lives sets it right.
                if abs(self.now() - path.stat().st_mtime) < self.expiry:
                    return False
            except FileNotFoundError:  # given up just now
                return False
            number += 1
        path = self.folder / f"{self.prefix}-{part}.claim-{number}"
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        with os.fdopen(handle, "w") as f:
            f.write(json.dumps({"owner": self.owner}))
        with self._lock:
            self._held[part] = path
        return True

    def release(self, part: str) -> None:
        """Removes a unit's claims, of those who died at it too."""
        with self._lock:
            mine = self._held.pop(part, None)
        if mine is None:
            return
        number = int(mine.name.rpartition("-")[2])
        for i in range(number + 1):
            (self.folder / f"{self.prefix}-{part}.claim-{i}").unlink(missing_ok=True)

    def _last(self, part: str) -> tuple[int, Path] | None:
        number = -1
        while (path := self.folder / f"{self.prefix}-{part}.claim-{number + 1}").exists():
            number += 1
        if number < 0:
            return None
        return number, path.with_name(f"{self.prefix}-{part}.claim-{number}")


class Units:
    """The units of one evaluation: iterating takes one after the other that nobody has, until all are done.

    Args:
        partials: where results go.
        parts: names of the units.
        sharing: with whom.
        label: what is evaluated, for `status`.
    """

    def __init__(
        self, partials: Partials, parts: Sequence[str], sharing: Sharing, label: str | None = None
    ) -> None:
        self.partials, self.parts, self.sharing = partials, list(parts), sharing
        self.claims = Claims(partials.folder, partials.prefix, sharing.expiry)
        about = json.dumps({"label": label or "evidence", "units": self.parts})
        write_whole(partials.folder / f"{partials.prefix}.json", about)

    def __iter__(self) -> Iterator[str]:
        """Yields units to compute; between two of them the former one must have been saved."""
        left = list(self.parts)
        with self.claims.beating():
            while left:
                took = False
                for part in list(left):
                    if self._done(part):
                        left.remove(part)
                    elif self.claims.take(part):
                        # Somebody may have ended it between the look and the claim.
                        if not self._done(part):
                            took = True
                            yield part
                        self.claims.release(part)
                        left.remove(part)
                if left and not took:
                    time.sleep(self.sharing.poll)

    def _done(self, part: str) -> bool:
        return self.partials.path(part).is_file()


@dataclass(frozen=True)
class Status:
    """How far an evaluation has come.

    Attributes:
        label: what is evaluated.
        done, total: units.
        workers: who holds a unit, and seconds since its last sign.
        seconds: from the first to the last unit done.
    """

    label: str
    done: int
    total: int
    workers: dict[str, float]
    seconds: float

    def __str__(self) -> str:
        rate = (self.done - 1) / self.seconds if self.done > 1 and self.seconds > 0 else 0.0
        left = f", {(self.total - self.done) / rate:.0f} s left" if rate and self.done < self.total else ""
        speed = f", {rate:.3g} units/s{left}" if rate else ""
        at = "".join(f"\n  {name}: last sign {age:.0f} s ago" for name, age in sorted(self.workers.items()))
        return f"{self.label}: {self.done} of {self.total} units{speed}{at}"


def status(folder: str | os.PathLike[str]) -> list[Status]:
    """The evaluations in a folder of partial results that were shared, newest last.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a damaged file of an evaluation.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"expected a folder of partial results, got {folder}, which does not exist")
    found = []
    for path in sorted(folder.glob("*.json"), key=lambda p: p.stat().st_mtime):
        try:
            about = read_json(path)
            parts, label = list(about["units"]), visible(str(about["label"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"expected what is evaluated in {path}, got a damaged file ({error})") from None
        times = [
            p.stat().st_mtime for part in parts if (p := folder / f"{path.stem}-{part}.safetensors").is_file()
        ]
        workers: dict[str, float] = {}
        for claim in folder.glob(f"{glob.escape(path.stem)}-*.claim-*"):
            try:
                owner = visible(str(read_json(claim)["owner"]))
                workers[owner] = max(0.0, time.time() - claim.stat().st_mtime)
            except (OSError, ValueError, KeyError, TypeError):  # given up just now, or made
                continue
        spent = max(times) - min(times) if times else 0.0
        found.append(Status(label, len(times), len(parts), workers, spent))
    return found
