"""Counter-based seeds: noise is a function of where it is used, not of what ran before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ..devices import noise_state, put_back, seed_noise


def derive_seed(seed: int, stream: str, *counters: int) -> int:
    """A 63-bit seed that depends on `(seed, stream, *counters)` alone.

    Chunked, sharded, resumed and repeated runs draw the same noise for the same unit of work.
    Streams keep uses apart ("step", "weights", ...).

    Raises:
        ValueError: where `seed` or a counter is negative.
    """
    if seed < 0 or any(c < 0 for c in counters):
        raise ValueError(f"expected a seed and counters >= 0, got {(seed, *counters)}")
    # A hash of the text: NumPy's SeedSequence pads with zeros, so (0,) and (0, 0) would be one.
    text = repr((int(seed), stream, *(int(c) for c in counters)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) >> 1


def seed_of_part(seed: int, number: int) -> int:
    """The seed of one of the parts that draws are made in; the first has the seed itself.

    `seed + number` would give part 1 of seed 0 and part 0 of seed 1 the same draws.
    """
    return seed if number == 0 else derive_seed(seed, "part", number)


@contextmanager
def seeded(seed: int, stream: str, *counters: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Runs its body under `derive_seed(...)` and leaves the caller's random state as it was."""
    with reseeding(device) as reseed:
        reseed(derive_seed(seed, stream, *counters))
        yield


def refuse_seeding(seed: int, stream: str, *counters: int) -> None:
    """Refuses a program that has seeded torch as it ran under `seeded(seed, stream, *counters)`.

    All its runs would draw the same noise: draws of other chunks, and the momenta of chains, would be repetitions.

    Raises:
        ValueError: if the generator's seed is another one by now.
    """
    if torch.initial_seed() != derive_seed(seed, stream, *counters):
        raise ValueError(
            "expected a program that leaves torch's random state to its caller, got one that seeds it as it runs "
            "(pyro.set_rng_seed, torch.manual_seed): all its runs would draw the same numbers; try to seed once, "
            "before the call, or to draw fixed numbers outside of model and guide"
        )


@contextmanager
def reseeding(device: torch.device | str = "cpu") -> Iterator[Callable[[int], None]]:
    """Yields a function that seeds torch; the caller's random state is as it was after the body."""
    device = torch.device(device)
    state = noise_state(device)
    try:
        yield lambda seed: seed_noise(seed, device)
    finally:
        put_back(state, device)
