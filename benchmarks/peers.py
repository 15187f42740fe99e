"""Other libraries, each in a process of its own that times a block of calls when it is asked to.

Asking over a pipe keeps the measurement interleaved although no library shares a process with another.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from nets import Net
from settings import Settings
from timing import Absent, Timed

CHILDREN = Path(__file__).parent / "children"
MISSING = "not installed (uv sync --extra bench)"


class Child:
    """A script in `children/` under the peers' interpreter.

    Attributes:
        note: why it cannot be timed; None while it can.
        detail: what it says of itself (versions, choices).
    """

    def __init__(self, python: str, script: Path, request: dict[str, Any]) -> None:
        self.note: str | None = None
        self._process = subprocess.Popen(
            [python, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(request["threads"])},
        )
        about = self._ask(request)
        if "missing" in about:
            self.note = MISSING
        self.detail = ", ".join(f"{k} {v}" for k, v in about.items() if k != "ready")

    def block(self, calls: int) -> float:
        """Seconds per call; nan once the child has failed (then `note` says how)."""
        if self.note is not None:
            return float("nan")
        return float(self._ask({"calls": calls}).get("seconds", float("nan")))

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"error": "its process ended"}
        if "error" in answer:
            self.note = f"failed: {answer['error']}"
        return answer

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


@contextmanager
def peer(script: str, net: Net, settings: Settings, **more: Any) -> Iterator[Timed]:
    """A child for this network, on as many threads as this process uses; ended with the block."""
    request = {
        "net": net.as_json(),
        "threads": torch.get_num_threads(),
        "device": settings.device.type,
        **more,
    }
    try:
        child = Child(settings.peers, CHILDREN / f"{script}.py", request)
    except OSError as error:
        yield Absent(f"no interpreter {settings.peers}: {error.strerror}")
        return
    try:
        yield child
    finally:
        child.close()
