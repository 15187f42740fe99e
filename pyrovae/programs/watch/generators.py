"""The state of torch's generators of random numbers, taken and put back."""

from __future__ import annotations

import torch
from torch import Tensor

State = list[Tensor]


def _generators(device: torch.device | None) -> list[torch.Generator]:
    generators = [torch.default_generator]
    if device is not None and device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    return generators


def noise_state(device: torch.device | None) -> State:
    """Positions of the generators of the CPU, and of a device."""
    return [g.get_state() for g in _generators(device)]


def put_back(state: State, device: torch.device | None) -> None:
    """Draws go on from there."""
    for generator, value in zip(_generators(device), state, strict=True):
        generator.set_state(value)
