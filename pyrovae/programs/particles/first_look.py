"""One look at a program before its weights are taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from ..checks.refusals import refuse, refuse_density, refuse_hidden_density, refuse_own_noise
from ..checks.structure import check_structure
from ..declaration import declaration_of
from ..layers import layers
from ..modes import module_mode
from ..parameters import scratch
from ..plates import ChooseSubsample
from ..seeds import seeded
from ..sites import sample_sites
from .gradients import rescored


@dataclass(frozen=True)
class Seen:
    """A program that was looked at: its data plate, and the depth of its plates."""

    programs: tuple[Any, Any]
    plate: str
    depth: int

    def is_of(self, model: Any, guide: Any) -> bool:
        """Whether these are the same programs, whatever handlers are around them now."""
        return self.programs == (layers(model)[-1], layers(guide)[-1])


def look(
    model: Any, guide: Any, args: Any, kwargs: Any, *, plate: str | None, name: str, fixed: bool
) -> Seen:
    """Runs the program once; leaves noise, modes and parameters as they were.

    Raises:
        ValueError: for the first thing that makes importance weights, or their gradients, mean nothing.
    """
    chains = [layers(model), layers(guide)]
    programs = (chains[0][-1], chains[1][-1])
    declared = next(
        (d for d in map(declaration_of, chains[0]) if d.density or d.plate), declaration_of(model)
    )
    plate = plate or declared.plate or "data"
    device = next((a.device for a in args if isinstance(a, Tensor)), torch.device("cpu"))
    with (
        seeded(0, "look", device=device),
        torch.enable_grad(),
        module_mode(*programs, training=False) as modules,
        scratch(*chains[0], *chains[1]),
        poutine.block(),
        ChooseSubsample(plate, None),  # a random one may not fit a part of the data
    ):
        q = poutine.trace(guide).get_trace(*args, **kwargs)
        p = poutine.trace(poutine.replay(model, trace=q)).get_trace(*args, **kwargs)
        refuse(q, p, plate, name)
        check_structure(q, p, plate, declared)
        refuse_density(q, p, declared.density)
        if fixed:
            refuse_hidden_density(rescored(guide, q, args, kwargs), name)
            dropouts = [m for m in modules if isinstance(m, _DropoutNd)]
            for module in dropouts:  # in train mode a guide that runs twice would be two guides
                module.training = True
            if dropouts:
                q = poutine.trace(guide).get_trace(*args, **kwargs)
                refuse_own_noise(q, rescored(guide, q, args, kwargs), name)
    frames = [f for t in (q, p) for _, s in sample_sites(t) for f in s["cond_indep_stack"] if f.vectorized]
    return Seen(programs, plate, max(-f.dim for f in frames))
