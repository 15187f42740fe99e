"""What a benchmark run was asked for."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field

import torch

# An interpreter that has NumPyro and Pythae, where they are kept apart from this project's packages.
PEERS_VARIABLE = "PYROVAE_PEERS"


@dataclass(frozen=True)
class Settings:
    """Repeats, calls in a block, device and the interpreter of the peers.

    Args:
        device: of all tensors.
        repeats: blocks of each run.
        calls: calls in a block.
        quick: smaller data and fewer sizes where a case has many.
        peers: a Python interpreter.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    repeats: int = 15
    calls: int = 20
    quick: bool = False
    peers: str = field(default_factory=lambda: os.environ.get(PEERS_VARIABLE, sys.executable))

    @property
    def ours(self) -> str:
        """What our compiled step is called on this device."""
        return "pv.SVI, one CUDA graph" if self.device.type == "cuda" else "pv.SVI, compiled"
