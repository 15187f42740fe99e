"""The plate over data: finding it, and running a program on some of the data only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor

from .arguments.marks import Marked, change, pick_rows, unmarked

PARTICLES = "_pyrovae_particles"  # name of the plate over samples
Calling = Literal["sliced", "indexed", "whole"]


class ChooseSubsample(Messenger):
    """Makes the plate `name` (None: every one) take `indices` (None: the first ones) where it would draw a subsample.

    Indices that the program gives its plate itself (`subsample=ind`) are kept.
    """

    def __init__(self, name: str | None, indices: Tensor | None) -> None:
        super().__init__()
        self.name = name
        self.indices = indices

    def _pyro_sample(self, msg: Any) -> None:
        own = self.name is None or msg["name"] == self.name
        if own and isinstance(msg["fn"], _Subsample) and msg["value"] is None:
            fn = msg["fn"]
            first = fn.size if fn.subsample_size is None else fn.subsample_size
            msg["value"] = torch.arange(first, device=fn.device) if self.indices is None else self.indices
            msg["done"] = True


def alone(model: Any, guide: Any, args: tuple[Any, ...], plate: str) -> tuple[Any, Any]:
    """Traces of the guide and of the model alone (from its prior), both on the first data that a plate picks.

    Where the guide alone subsamples, the model has the guide's subsample, as in Pyro's replay.
    """
    with ChooseSubsample(plate, None):  # a random subsample may not fit data of another size
        guide_trace = poutine.trace(guide).get_trace(*args)
    node = guide_trace.nodes.get(plate)
    picked = None
    if node is not None and node["fn"].subsample_size is not None and len(node["value"]) < node["fn"].size:
        picked = node["value"]
    with ChooseSubsample(plate, picked):
        return guide_trace, poutine.trace(model).get_trace(*args)


@dataclass(frozen=True)
class Arguments:
    """A program's arguments, and how a subset of the data is handed to it.

    Attributes:
        context: as given; what is per datum is marked so, or is a tensor of N rows that nobody marked.
        calling: `"sliced"`: the program takes a subset as its argument (also where its plate is
            `plate("data", N, subsample_size=len(x))`). `"indexed"`: it takes all data and picks
            `x[ind]` inside a subsampled plate, always `subsample_size` at a time. `"whole"`: its
            plate has a fixed size, so it only runs on all data at once.
    """

    x: Tensor
    context: tuple[Any, ...]
    plate: str
    calling: Calling
    subsample_size: int | None = None

    @property
    def num_data(self) -> int:
        """N."""
        return len(self.x)

    def slice(self, indices: Tensor) -> tuple[Any, ...]:
        """`(x, *context)` along the data dim, without marks; context that is not per datum passes whole."""
        return (self.x[indices], *(take(c, indices, self.num_data) for c in self.context))

    def whole(self) -> tuple[Any, ...]:
        """`(x, *context)` as given, without marks."""
        return (self.x, *unmarked(self.context))

    @property
    def nested(self) -> bool:
        """Whether context in a container is per datum: a graph takes tensors alone as its inputs."""
        found: list[bool] = []
        for c in self.context:
            if isinstance(c, tuple | list | dict):
                change(c, lambda v: found.append(isinstance(v, Marked) and v.per_datum))
            elif isinstance(c, Marked) and c.per_datum:
                found.append(not isinstance(c.value, Tensor))
        return any(found)

    @property
    def lists(self) -> bool:
        """Whether context per datum is a list: labels, numbers, sequences."""
        found: list[bool] = []
        for c in self.context:
            change(
                c, lambda v: found.append(isinstance(v, Marked) and v.per_datum and isinstance(v.value, list))
            )
        return any(found)

    def chunks(self, size: int) -> list[Tensor]:
        """Index sets that cover the data, each at most `size` (all of a fixed size if indexed)."""
        every = torch.arange(self.num_data, device=self.x.device)
        if self.calling == "whole":
            return [every]
        if self.calling == "indexed":
            size = self.subsample_size or size
        return list(every.split(size))


def take(value: Any, indices: Tensor, num_data: int) -> Any:
    """`value` without marks, the rows `indices` of what is per datum: marked so, or an unmarked tensor of N rows."""
    if isinstance(value, Tensor):
        return value[indices] if value.dim() > 0 and len(value) == num_data else value
    return change(value, lambda v: _rows(v, indices, num_data) if isinstance(v, Marked) else v)


def _rows(marked: Marked, indices: Tensor, num_data: int) -> Any:
    if not marked.per_datum:
        return unmarked(marked.value)
    return change(unmarked(marked.value), lambda v: pick_rows(v, indices), items=num_data)
