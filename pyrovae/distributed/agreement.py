"""Ranks compare what they were started with, before they compute anything together."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from typing import Any

import pyro
import torch
from torch import Tensor

from .world import Elsewhere, World


def agree(world: World, about: Mapping[str, Any]) -> None:
    """Refuses ranks that differ in versions or in `about` (plain values, by name).

    Raises:
        ValueError: on the first rank, naming what differs and where.
        Elsewhere: on the others.
    """
    versions = {"python": platform.python_version(), "torch": torch.__version__, "pyro": pyro.__version__}
    # Text: NaN differs from NaN, and tuples from lists.
    own = {k: json.dumps(v, sort_keys=True, default=str) for k, v in {**versions, **about}.items()}
    found = world.every(own)
    for name in dict.fromkeys(k for one in found for k in one):
        values = [one.get(name) for one in found]
        for rank, value in enumerate(values):
            if value != values[0]:
                text = (
                    f"expected the same {name} on all {world.size} ranks, got {_about(values[0], value)} on rank 0 and "
                    f"{_about(value, values[0])} on rank {rank}; try the same options, data and versions everywhere"
                )
                raise ValueError(text) if world.first else Elsewhere(text)


def _about(text: str | None, other: str | None) -> str:
    """Text, or where it differs from the other one."""
    if text is None:
        return "none"
    if len(text) <= 80:
        return text
    same = next(
        (i for i, (a, b) in enumerate(zip(text, other or "", strict=False)) if a != b), len(other or "")
    )
    start = max(0, same - 40)
    return f"{'...' * (start > 0)}{text[start : start + 80]}{'...' * (start + 80 < len(text))}"


def check_in_step(world: World, tensors: list[Tensor], when: str) -> None:
    """Refuses ranks whose tensors differ in any bit.

    Raises:
        RuntimeError: on every rank.
    """
    sums = torch.stack(
        [t.detach().reshape(-1).view(torch.uint8).sum(dtype=torch.long) for t in tensors]
    ).cpu()
    found = sums.new_empty(world.size * len(sums))
    world.gather(sums, found)
    if not all(torch.equal(row, sums) for row in found.view(world.size, -1)):
        raise RuntimeError(
            f"expected equal weights on all ranks {when}, got different ones: a defect of a rank"
        )
