"""Live tensor bytes of a program run, counted from tensor sizes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .inspection import Program

# Chunks whose live tensors fit the caches beat large ones on CPU by 15-65 %; a GPU wants
# enough rows to fill it.
BUDGET = {"cpu": 24 * 2**20, "cuda": 2 * 2**30}


def budget_on(device: torch.device, budget: int | None = None) -> int:
    """Bytes of live tensors of a chunk: those asked for, else the device's default.

    Raises:
        ValueError: for fewer than one.
    """
    budget = budget or BUDGET.get(device.type, BUDGET["cpu"])
    if budget < 1:
        raise ValueError(f"expected a budget of at least one byte, got {budget}")
    return budget


class LiveBytes(TorchDispatchMode):
    """Counts bytes of storages that are alive at once among those allocated in the body.

    Objects that refer to each other (the inverses of transforms) live until the garbage is collected, and when that is
    depends on all that the process did before. It is collected here before a peak counts, so that the count does not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known: set[int] = set()

    def __enter__(self) -> LiveBytes:
        # What there is already need not be looked through, which would take long; what a user has frozen stays so.
        self._freezes = gc.get_freeze_count() == 0
        if self._freezes:
            gc.freeze()
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        if self._freezes:
            gc.unfreeze()

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                storage = leaf.untyped_storage()
                key = storage._cdata
                if key not in self._known:
                    self._known.add(key)
                    size = storage.nbytes()
                    self.live += size
                    weakref.finalize(storage, self._free, key, size)
        if self.live > self.peak:
            gc.collect()
            self.peak = max(self.peak, self.live)
        return out


def bytes_of_one_more(run: Callable[[int], Any], low: int) -> int:
    """Live bytes that one more draw takes in `run(number of draws)`.

    A slope between two runs, so that what is paid per datum (the encoder) or per call does not
    count as if it were paid per draw.
    """
    peaks = []
    for number in (low, 3 * low):
        with LiveBytes() as counter:
            run(number)
        peaks.append(counter.peak)
    return (peaks[1] - peaks[0]) // (2 * low)


def bytes_per_pair(program: Program) -> int:
    """Live bytes that one more (datum, sample) pair takes, at least 1; measured once a program."""
    if "bytes per pair" not in program.measured:
        program.measured["bytes per pair"] = _measure(program)
    return program.measured["bytes per pair"]


def _measure(program: Program) -> int:
    args = program.arguments
    indices = args.chunks(1)[0]
    if args.calling == "sliced":
        indices = indices[:1]
    with program.quiet(0, "memory"):
        each = bytes_of_one_more(lambda number: program.run(indices, number).log_weights(), 32)
    return max(1, each // len(indices))
