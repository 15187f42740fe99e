"""Execution of an estimator: seed, memory, compilation and progress, handed on as one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .compile_when import Compile

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Execution:
    """Settings of a run beside the program and the estimator's own.

    Attributes:
        seed: of the noise.
        budget: bytes of live tensors of a chunk; None: the device's default.
        compile: whether to run compiled graphs; "auto": where it pays.
        progress: called as `progress(done, total)`, in the estimator's own units.
    """

    seed: int = 0
    budget: int | None = None
    compile: Compile = False
    progress: Progress | None = None

    def tell(self, done: int, total: int) -> None:
        """Tells the progress, where somebody listens."""
        if self.progress is not None:
            self.progress(done, total)
