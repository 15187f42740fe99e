"""Options of where a command runs, what survives it, and what is shown. The docstrings below are their --help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DeviceName = Literal["auto", "cpu", "cuda"]
FormatName = Literal["png", "pdf", "svg"]


@dataclass(frozen=True)
class KeepOptions:
    """Options of what survives an interruption, and of what is logged."""

    resume: bool = False
    """Continue the run in --out as it was started. One that has ended goes on with more --epochs; in an empty folder
    one starts."""
    checkpoint_every: int = 1
    """Epochs from one checkpoint to the next; 0 for none."""
    keep: int = 2
    """Checkpoints kept while the run lasts."""
    tensorboard: bool = False
    """Also log scalars for TensorBoard, in the run folder (needs the package tensorboard)."""


@dataclass(frozen=True)
class RankOptions:
    """Several processes, started by torchrun, and batches that do not fit at once."""

    accumulate: int = 1
    """Micro-batches of a batch on each rank, one after the other: 1/accumulate of the memory."""
    bitwise: bool = False
    """Add micro-batches up in a fixed order: the same bits for every number of ranks with the same ranks x accumulate
    (and OMP_NUM_THREADS), for a message that grows with their number."""
    rank_timeout: float = 300.0
    """Seconds after which a rank that is not heard of ends the run."""


@dataclass(frozen=True)
class MachineOptions:
    """Options of where it runs, and of what is shown."""

    device: DeviceName = "auto"
    """auto takes a GPU where there is one."""
    tf32: bool = False
    """On a GPU: float32 products in TF32, faster and less exact (log-weights to 0.03 nats)."""
    quiet: bool = False
    """No progress bars."""
    debug: bool = False
    """Show the traceback of an error."""
