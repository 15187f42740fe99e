"""Chunks of data with their chains ready to be measured: a pilot has tuned them, and is done."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ...programs import Program, seeded
from ...programs.compile.compiled_densities import CompiledDensities
from ...programs.compile.tracing import UntraceableError
from ...programs.latents.densities import Densities
from ...programs.latents.terms import Start
from ...programs.memory import budget_on, bytes_per_pair
from ..core.compile_when import MOVES, compiles
from ..core.execution import Execution
from .annealed_path import Annealed, Observe, Resample, anneal, power_schedule
from .hmc import Evaluate, Point
from .pilot import Tuning, tune

# The gradient keeps what the forward pass made, and makes as much again.
BACKWARD = 3
MIN_PILOT_CHAINS = 8


class AnnealedRun(Protocol):
    """Settings of the chains, as `pv.AIS` has them."""

    @property
    def num_chains(self) -> int:
        """K, the chains of each datum."""

    @property
    def num_temperatures(self) -> int:
        """Temperatures of the path."""

    @property
    def leapfrog(self) -> int:
        """Leapfrog steps of a move."""

    @property
    def start(self) -> Start:
        """Start of the chains: `"prior"` or `"guide"`."""

    @property
    def schedule(self) -> Sequence[float] | Tensor | None:
        """The temperatures, where they are given."""

    @property
    def target_acceptance(self) -> float:
        """The acceptance that the pilot aims at."""


class Ticks:
    """Progress in (datum, chain, temperature) triples."""

    def __init__(self, execution: Execution, pairs: int, temperatures: int) -> None:
        self.execution, self.total, self.done = execution, pairs * temperatures, 0

    def of(self, pairs: int) -> Callable[[], None]:
        """Function to call after each temperature of a chunk."""

        def advance() -> None:
            self.done += pairs
            self.execution.tell(min(self.done, self.total), self.total)

        return advance


@dataclass(frozen=True)
class TunedChunk:
    """Some data, ready to be measured: densities, and what the pilot has found for them.

    Attributes:
        number: of the chunk; noise is seeded by it.
        indices: the data; a last chunk is padded by repeating its last datum.
        num_data: without padding.
        densities: at K chains.
        evaluate: base, slope and gradients; compiled if asked for.
        tuning: frozen.
    """

    ais: AnnealedRun
    number: int
    indices: Tensor
    num_data: int
    densities: Densities
    evaluate: Evaluate
    tuning: Tuning

    def betas(self, num_temperatures: int) -> tuple[float, ...]:
        """The temperatures."""
        if self.ais.schedule is not None:
            return tuple(float(b) for b in self.ais.schedule)
        return self.tuning.schedule(num_temperatures)

    def start(self) -> Point:
        """Fresh exact draws at beta = 0. One outside of the model's support has weight zero."""
        return _start(self.densities, self.evaluate, self.ais.start)

    def anneal(
        self,
        betas: Sequence[float],
        point: Point | None = None,
        *,
        observe: Observe | None = None,
        advance: Callable[[], None] | None = None,
        resample: Resample | None = None,
    ) -> Annealed:
        """Chains along `betas`, from `point` (default: `start()`), with the tuned steps; see `annealed_path.anneal`."""
        point = self.start() if point is None else point
        steps, leapfrog = self.tuning.steps, self.ais.leapfrog
        return anneal(self.evaluate, point, betas, steps, leapfrog, observe, advance, resample)


def _start(densities: Densities, evaluate: Evaluate, start: Start) -> Point:
    u = densities.initial(start)
    dead = ~torch.isfinite(u).all(-1)
    point = Point.at(evaluate, torch.where(dead.unsqueeze(-1), 0.0, u))
    return replace(point, slope=torch.where(dead, -torch.inf, point.slope)) if dead.any() else point


def chunks(
    program: Program,
    ais: AnnealedRun,
    execution: Execution,
    *,
    temperature: float = 1.0,
    numbers: Iterable[int] | None = None,
) -> Iterator[TunedChunk]:
    """Chunks of data, each with a pilot run of its own behind it; paths end at p(x, z)^{1/temperature}.

    `numbers` are those of the chunks wanted, each as it is among all.
    """
    device = program.arguments.x.device
    moves = program.arguments.num_data * ais.num_chains * ais.leapfrog * ais.num_temperatures
    compile = compiles(execution.compile, moves, MOVES)
    compiled: CompiledDensities | None = None
    parts = split(program, ais, execution.budget)
    for number in range(len(parts)) if numbers is None else numbers:
        indices, num_data = parts[number]
        densities = Densities(program, indices, ais.num_chains, temperature)
        evaluate = _eager(densities, ais.start)
        if compile:
            compile = False  # once
            try:
                compiled = CompiledDensities(densities, ais.start)
            except UntraceableError as error:
                warnings.warn(f"this program is not compiled and runs eagerly: {error}", stacklevel=3)
        if compiled is not None:
            evaluate = compiled.bind(densities)
        pilot, on = densities, evaluate
        if ais.num_chains < MIN_PILOT_CHAINS:
            pilot = Densities(program, indices, MIN_PILOT_CHAINS, temperature)
            on = _eager(pilot, ais.start)
        size = max(20, ais.num_temperatures // 5)
        if ais.schedule is not None:
            grid = [float(b) for b in ais.schedule]
            grid = sorted({*grid[:: max(1, len(grid) // size)], *power_schedule(10).tolist(), 1.0})
        else:
            grid = power_schedule(size, 4.0 if ais.start == "prior" else 2.0).tolist()
        with seeded(execution.seed, "ais pilot", number, device=device):
            tuning = tune(on, _start(pilot, on, ais.start).u, grid, ais.leapfrog, ais.target_acceptance)
        yield TunedChunk(ais, number, indices, num_data, densities, evaluate, tuning)


def _eager(densities: Densities, start: Start) -> Evaluate:
    return lambda u: densities.evaluate(u, start)


def split(program: Program, ais: AnnealedRun, budget: int | None) -> list[tuple[Tensor, int]]:
    """Chunks of one size (so that one graph serves all), and how many of each are no padding."""
    args = program.arguments
    budget = budget_on(args.x.device, budget)
    if args.calling != "sliced":
        return [(indices, len(indices)) for indices in args.chunks(args.num_data)]
    Densities(program, args.chunks(1)[0], 1)  # refuses before memory is measured on it
    rows = max(1, budget // (BACKWARD * bytes_per_pair(program) * ais.num_chains))
    parts = math.ceil(args.num_data / rows)
    size = math.ceil(args.num_data / parts)
    out = []
    for part in args.chunks(size):
        pad = part[-1:].expand(size - len(part))
        out.append((torch.cat([part, pad]), len(part)))
    return out
