"""Importance sampling with a share of its draws from the prior."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from ...programs import Program
from ...programs.particles.defensive import defensive_weights
from ..core.checks import check_density, check_weights
from ..core.chunks import choose_chunk
from ..core.execution import Execution


def num_chunks(program: Program, num_samples: int, budget: int | None) -> int:
    """Into how many chunks the data are divided."""
    return len(program.arguments.chunks(choose_chunk(program, num_samples, budget).data))


def iterate_defensive(
    program: Program,
    num_samples: int,
    share: float,
    numbers: Iterable[int],
    execution: Execution,
) -> Iterator[tuple[int, Tensor]]:
    """Number and log-weights `[K, n]` of chunks of data; the same shares in each block of samples.

    Raises:
        ValueError: as `log_weights` and `defensive_weights`; a share that leaves the prior without a draw.
    """
    check_density(program)
    prior = round(share * num_samples)
    if not 1 <= prior < num_samples:
        raise ValueError(
            f"expected a defensive share that gives guide and prior one draw of {num_samples} at least, got "
            f"{share:g}; try a larger num_samples"
        )
    args = program.arguments
    chunk = choose_chunk(program, num_samples, execution.budget)
    parts = args.chunks(chunk.data)
    done = 0
    for number in numbers:
        indices, blocks = parts[number], []
        for block, start in enumerate(range(0, num_samples, chunk.samples)):
            stop = min(start + chunk.samples, num_samples)
            # Shares differ by one draw between blocks at most, and add up to those of K.
            own = prior * stop // num_samples - prior * start // num_samples
            with program.quiet(execution.seed, "defensive", number, block):
                blocks.append(
                    defensive_weights(program, indices, stop - start - own, own, share=prior / num_samples)
                )
            check_weights(blocks[-1], indices, program)
            done += (stop - start) * len(indices)
            execution.tell(done, num_samples * args.num_data)
        yield number, torch.cat(blocks)
