"""Abilities of each kind of device: captured graphs, the fused update, generators of its own."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

CAPTURES = {"cuda"}  # work on them is recorded once and replayed: nothing may be read back, or be elsewhere
COMPILES = {"cpu", "cuda"}  # code is generated for them; elsewhere all runs eagerly
FUSES = {"cpu", "cuda"}  # they have the fused update of Adam
State = list[Tensor]  # of generators of random numbers


def captures(device: torch.device) -> bool:
    """Whether a step on this device becomes one graph that is replayed."""
    return device.type in CAPTURES


def noise_state(*devices: torch.device | None) -> State:
    """Positions of the generators of the CPU, and of devices."""
    own = [torch.get_device_module(d).get_rng_state(d) for d in devices if _has_own(d)]
    return [torch.get_rng_state(), *own]


def put_back(state: State, *devices: torch.device | None) -> None:
    """Draws go on from there."""
    torch.set_rng_state(state[0])
    for device, value in zip(filter(_has_own, devices), state[1:], strict=True):
        torch.get_device_module(device).set_rng_state(value, device)


def seed_noise(seed: int, *devices: torch.device | None) -> None:
    """Seeds the generators of the CPU, and of devices; no others, as `torch.manual_seed` would."""
    torch.default_generator.manual_seed(seed)
    for device in filter(_has_own, devices):
        module = torch.get_device_module(device)
        with module.device(device) if hasattr(module, "device") else nullcontext():
            module.manual_seed(seed)


def started() -> tuple[torch.device, ...]:
    """The accelerator that is in use, if there is one: asking others for their state would start them."""
    kind = torch.accelerator.current_accelerator(check_available=True)
    if kind is None or not getattr(torch.get_device_module(kind), "is_initialized", lambda: True)():
        return ()
    return (torch.device(kind.type, torch.accelerator.current_device_index()),)


def _has_own(device: torch.device | None) -> bool:
    return device is not None and device.type not in {"cpu", "meta"}


def in_use() -> torch.device:
    """The accelerator that is in use, or the CPU: where a program draws whose arguments do not say it."""
    return next(iter(started()), torch.device("cpu"))


def as_tensor(value: Any, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor where it lies, and a number, list or array on the CPU.

    `torch.as_tensor` moves tensors, too, to what `torch.set_default_device` says.
    """
    if isinstance(value, Tensor):
        return value if dtype is None else value.to(dtype)
    return torch.as_tensor(value, dtype=dtype, device="cpu")
