"""One AIS run along p(z) p(x|z)^beta, on one grid of temperatures for all data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ..evidence.chains.hmc import Point
from ..evidence.chains.tuned_chunks import Ticks, chunks
from ..evidence.core.checks import check_density
from ..evidence.core.execution import Execution
from ..evidence.estimators.ais import AIS
from ..programs import Program, seeded


class Recorder(Protocol):
    """Recorder that looks at the chains of one chunk of data on their way."""

    def __call__(self, t: int, point: Point, log_weights: Tensor) -> None:
        """Takes the states at a temperature `[K, n, D]` and their weights so far `[K, n]`."""
        ...

    def stacked(self) -> list[Tensor]:
        """Records, with data in the second dim."""
        ...


@dataclass(frozen=True)
class PriorPath:
    """Results of a run.

    Attributes:
        betas: `[T]`, from 0 to 1.
        recorded: the recorder's tensors, all data in their second dim.
        work: -ln w of each chain, `[K, N]`.
        acceptance: of HMC moves, `[K, N]`.
    """

    betas: Tensor
    recorded: list[Tensor]
    work: Tensor
    acceptance: Tensor


def run_prior_path(
    program: Program,
    ais: AIS,
    recorder: Callable[[Tensor], Recorder],
    execution: Execution,
) -> PriorPath:
    """Runs it; `recorder(betas)` makes a recorder for each chunk of data.

    Raises:
        ValueError: `ais` that starts from the guide; what `AIS` refuses.
    """
    if ais.start != "prior":
        raise ValueError(
            'expected AIS(start="prior"), whose path is prior x likelihood^beta, got start="guide"'
        )
    check_density(program)
    if ais.schedule is None:  # one grid for all data, so that means over data mean something
        first = next(iter(chunks(program, ais, replace(execution, compile=False))))
        ais = replace(ais, schedule=first.betas(ais.num_temperatures))
    betas = tuple(float(b) for b in ais.schedule or ())
    grid = torch.tensor(betas, dtype=torch.float64, device="cpu")
    ticks = Ticks(execution, program.arguments.num_data * ais.num_chains, len(betas) - 1)
    parts: list[list[Tensor]] = []
    for chunk in chunks(program, ais, execution):
        records = recorder(grid)
        with seeded(execution.seed, "ais", chunk.number, device=program.arguments.x.device):
            advance = ticks.of(chunk.num_data * ais.num_chains)
            run = chunk.anneal(betas, observe=records, advance=advance)
        tensors = [*records.stacked(), -run.log_weights, run.acceptance]
        parts.append([v[:, : chunk.num_data].cpu() for v in tensors])
    *recorded, work, acceptance = (torch.cat(v, 1) for v in zip(*parts, strict=True))
    return PriorPath(grid, recorded, work, acceptance)
