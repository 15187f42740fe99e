"""How many data and samples are run at once, chosen by the bytes that they take."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch

from ...programs import Program
from ...programs.memory import budget_on, bytes_per_pair

SAMPLES_PER_CHUNK = 128


@dataclass(frozen=True)
class Chunk:
    """How many data and how many samples are run at once.

    Noise is seeded per chunk: results are equal for equal chunks, wherever and in whatever
    order they run.

    Example:
        >>> Chunk(data=100, samples=128).data
        100
    """

    data: int
    samples: int

    def __post_init__(self) -> None:
        if self.data < 1 or self.samples < 1:
            raise ValueError(f"expected a chunk of at least one datum and one sample, got {self}")


def pairs_in(program: Program, budget: int | None = None) -> int:
    """How many (datum, sample) pairs run at once within the bytes of `budget`."""
    budget = budget_on(program.arguments.x.device, budget)
    return max(1, budget // bytes_per_pair(program)) if program.vectorised else 1


def choose_chunk(program: Program, num_samples: int, budget: int | None = None) -> Chunk:
    """A chunk whose live tensors fit the budget, from the bytes a (datum, sample) pair takes.

    Bytes are counted from tensor sizes, not from the process, so the choice (and with it the
    noise) is the same on every machine.
    """
    args = program.arguments
    pairs = pairs_in(program, budget)
    if not program.vectorised:
        return Chunk(args.num_data, 1 if num_samples == 1 else min(num_samples, SAMPLES_PER_CHUNK))
    if args.calling != "sliced":
        rows = args.subsample_size or args.num_data
        return Chunk(rows, max(1, min(num_samples, pairs // rows)))
    # Samples before data: the guide encodes each datum once per chunk, whatever its samples.
    samples = min(num_samples, SAMPLES_PER_CHUNK, pairs)
    return Chunk(max(1, min(args.num_data, pairs // samples)), samples)


def halved(chunk: Chunk, error: BaseException) -> Chunk:
    """Half the samples at once; the numbers are then those of its seeds.

    Raises:
        torch.OutOfMemoryError: where it is one sample already.
    """
    if chunk.samples == 1:
        raise torch.OutOfMemoryError(
            f"expected memory for {chunk.data} data with one sample each, got out of memory; try a smaller chunk "
            f"(pv.Chunk({max(1, chunk.data // 2)}, 128)), or a smaller budget ({' '.join(str(error).split())[:200]})"
        ) from error
    smaller = Chunk(chunk.data, chunk.samples // 2)
    warnings.warn(
        f"out of memory: from here on {smaller.samples} samples of {chunk.data} data are run at once, and their "
        f"numbers are those of chunk={smaller}",
        RuntimeWarning,
        stacklevel=3,
    )
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return smaller
