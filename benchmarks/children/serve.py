"""The child's end of the pipe: one JSON object a line, in and out. Standard library only."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

# Runs so many calls and returns when their results are there.
Block = Callable[[int], Any]


def serve(make: Callable[[dict[str, Any]], tuple[Block, dict[str, Any]]]) -> int:
    """Answers `{"calls": n}` with seconds per call, until the parent closes the pipe.

    The first line is the request that `make` builds its run from; it returns the run and what to
    report of it. An import that fails is answered with `missing`, every other error with `error`.
    """
    # Libraries print; the pipe is for answers alone.
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**fields: Any) -> None:
        pipe.write(json.dumps(fields) + "\n")
        pipe.flush()

    request = json.loads(sys.stdin.readline())
    if hasattr(os, "sched_setaffinity"):
        # XLA takes every core it finds: show it as many as the parent's threads.
        cores = sorted(os.sched_getaffinity(0))[: max(1, request["threads"])]
        os.sched_setaffinity(0, cores)
    try:
        block, about = make(request)
    except ImportError as error:
        answer(missing=str(error.name or error))
        return 0
    except Exception as error:
        answer(error=_line(error))
        return 1
    answer(ready=True, **about)
    for line in sys.stdin:
        calls = json.loads(line)["calls"]
        try:
            start = time.perf_counter()
            block(calls)
            answer(seconds=(time.perf_counter() - start) / calls)
        except Exception as error:
            answer(error=_line(error))
            return 1
    return 0


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
