"""Times of several runs, taken in turn: on a shared machine only ratios of such times mean anything."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

Run = Callable[[], Any]


class Timed(Protocol):
    """Something that can be timed a block of calls at a time."""

    note: str | None  # why it cannot be timed here
    detail: str  # versions and choices, for the record

    def block(self, calls: int) -> float:
        """Seconds per call, over so many calls."""


@dataclass
class Here:
    """A run of this process. The clock stops when the device has finished, not when it was asked."""

    run: Run
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    note: str | None = None
    detail: str = ""

    def block(self, calls: int) -> float:
        self._finish()
        start = time.perf_counter()
        for _ in range(calls):
            self.run()
        self._finish()
        return (time.perf_counter() - start) / calls

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Absent:
    """A run that is not to be had here, and why."""

    note: str
    detail: str = ""

    def block(self, calls: int) -> float:
        raise RuntimeError(f"expected a run, got {self.note!r}")


@dataclass(frozen=True)
class Row:
    """A line of the table: `times` in `unit`, one for each repeat, or a note in their place."""

    case: str
    what: str
    unit: str
    times: tuple[float, ...] = ()
    ratio: float | None = None
    note: str | None = None
    detail: str = ""

    @property
    def least(self) -> float | None:
        return min(self.times) if self.times else None

    def as_json(self) -> dict[str, Any]:
        middle = statistics.median(self.times) if self.times else None
        return {
            "case": self.case,
            "what": self.what,
            "min": self.least,
            "median": middle,
            "unit": self.unit,
            "ratio": None if self.ratio is None or math.isnan(self.ratio) else self.ratio,
            "repeats": len(self.times),
            "note": self.note,
            "detail": self.detail,
        }


def interleaved(
    runs: Mapping[str, Timed], repeats: int, calls: int, warm_up: int = 3
) -> dict[str, list[float]]:
    """Seconds per call of each run, timed in turn `repeats` times, `calls` calls at a time.

    What fails is left out (its `note` says why): one run must not end the measurement of all.
    """
    times: dict[str, list[float]] = {}
    for name, run in runs.items():
        if run.note is None and _block(run, warm_up) is not None and run.note is None:
            times[name] = []
    # The threads of the process that ran last spin on for up to 200 ms, on the cores of the next.
    apart = 0.3 if any(not isinstance(runs[name], Here) for name in times) else 0.0
    for _ in range(repeats):
        for name in list(times):
            time.sleep(apart)
            _block(runs[name], 1)  # the caches and cores were another run's until now
            taken = _block(runs[name], calls)
            if taken is None:
                del times[name]
            else:
                times[name].append(taken)
    return times


def _block(run: Timed, calls: int) -> float | None:
    """Seconds per call; None, and a note, where it fails."""
    try:
        return run.block(calls)
    except Exception as error:
        run.note = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        return None


def rows(
    case: str,
    runs: Mapping[str, Timed],
    times: Mapping[str, list[float]],
    base: str,
    unit: str = "ms",
    factor: float = 1e3,
) -> list[Row]:
    """Rows in the order of `runs`, `factor` units to a second; ratios of minima to the run named `base`."""
    least = min(times[base]) if times.get(base) else math.nan
    out = []
    for name, run in runs.items():
        # A peer may also fail in the middle: nan among its times, and a note.
        if run.note is not None or name not in times:
            out.append(Row(case, name, unit, note=run.note))
        else:
            taken = times[name]
            scaled = tuple(t * factor for t in taken)
            out.append(Row(case, name, unit, scaled, min(taken) / least, detail=run.detail))
    return out
