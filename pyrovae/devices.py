"""Abilities of each kind of device: captured graphs, the fused update, generators of its own."""

from __future__ import annotations

import torch

CAPTURES = {"cuda"}  # work on them is recorded once and replayed: nothing may be read back, or be elsewhere
COMPILES = {"cpu", "cuda"}  # code is generated for them; elsewhere all runs eagerly
FUSES = {"cpu", "cuda"}  # they have the fused update of Adam


def captures(device: torch.device) -> bool:
    """Whether a step on this device becomes one graph that is replayed."""
    return device.type in CAPTURES
