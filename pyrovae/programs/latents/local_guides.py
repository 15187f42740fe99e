"""The guide of a program with parameters of its own for each datum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from ..checks.dependencies import dependencies
from ..inspection import PARTICLES, Program
from ..seeds import seeded
from ..sites import collect, is_factor, sample_sites
from .families import free_parameters, moved
from .supports import base_of

Offsets = dict[str, dict[str, Tensor]]


class MoveParameters(Messenger):
    """Moves the parameters of sites' distributions by offsets in unconstrained space."""

    def __init__(self, offsets: Offsets) -> None:
        super().__init__()
        self.offsets = offsets

    def _pyro_sample(self, msg: Any) -> None:
        # Inside of the guide's own plates, outside of the particle plate: the fn has the data's batch.
        if msg["name"] in self.offsets and not msg["is_observed"]:
            msg["fn"] = moved(msg["fn"], self.offsets[msg["name"]])


class LocalGuide:
    """q_n(z): the guide's families, each datum with free parameters, which start at the amortised ones.

    A parameter is that of the guide plus an offset per datum in unconstrained space. At a site that depends
    on no other draw this is any member of its family. At one that does (a hierarchical guide), the way in
    which it depends stays that of the guide, and the offset is added to it.

    Args:
        program: a pair whose guide draws continuous latents.
        indices: the data; all that follows is for these.

    Attributes:
        offsets: site to parameter to `[*batch, *parameter event]`, leaves.
        conditional: sites that depend on other draws.

    Raises:
        ValueError: a program that does not broadcast, enumerated sites, a family without known parameters.
    """

    def __init__(self, program: Program, indices: Tensor) -> None:
        refuse(program)
        self.given, self.indices = program, indices
        self.offsets: Offsets = {}
        self._axes: dict[str, int] = {}
        with (
            program.quiet(0, "local guide"),
            program.on(indices) as given,
        ):
            trace = poutine.trace(program.guide).get_trace(*given)
            for name, site in sample_sites(trace):
                if is_factor(site) or isinstance(base_of(site["fn"]), dist.Delta):
                    continue
                values = free_parameters(site["fn"], name)
                self.offsets[name] = {k: torch.zeros_like(v).requires_grad_() for k, v in values.items()}
                frame = next(f for f in site["cond_indep_stack"] if f.name == program.plate)
                self._axes[name] = len(site["fn"].batch_shape) + frame.dim
                self.rows: int = frame.size

    @property
    def leaves(self) -> list[Tensor]:
        """All offsets."""
        return [v for values in self.offsets.values() for v in values.values()]

    @property
    def program(self) -> Program:
        """The program with this guide, for the data at `indices` alone."""
        return replace(self.given, guide=MoveParameters(self.offsets)(self.given.guide))

    def log_weights(self, leaves: Sequence[Tensor], given: tuple[Any, ...], num_samples: int) -> Tensor:
        """ln p - ln q_n at draws of q_n with other leaves, `[K, n]`, nats; arguments sliced, in eval mode."""
        values = iter(leaves)
        offsets = {site: {name: next(values) for name in own} for site, own in self.offsets.items()}
        program = replace(self.given, guide=MoveParameters(offsets)(self.given.guide))
        traces = program.traces(given, num_samples)
        return collect(*traces, plate=program.plate, particles=PARTICLES).log_weights()

    def reset(self, rows: Tensor) -> None:
        """Puts the data at `rows` `[n]` (bool) back to the amortised parameters."""
        with torch.no_grad():
            for name, values in self.offsets.items():
                for v in values.values():
                    shape = [1] * v.dim()
                    shape[self._axes[name]] = len(rows)
                    v.masked_fill_(rows.reshape(shape), 0.0)


def conditional_sites(program: Program) -> list[str]:
    """Guide sites whose distribution depends on other draws."""
    with torch.no_grad(), seeded(0, "local guide", device=program.arguments.x.device):
        return sorted(n for n, up in dependencies(program, program.guide).items() if up)


def refuse(program: Program) -> None:
    """Refuses programs that per-datum guides cannot serve.

    Raises:
        ValueError: with the reason.
    """
    if program.enumerated:
        raise ValueError(
            "expected continuous latents alone, got enumerated discrete ones, which have no pathwise gradient"
        )
    if not program.vectorised:
        raise ValueError(
            f"expected a program that broadcasts over a particle plate at dim {-1 - program.max_plate_nesting}, "
            "got one that does not; try `...` indexing and negative dims in place of fixed shapes"
        )
