"""Counter-based seeds: every random choice has its own stream, and none touches the global generator."""

from typing import Final

import numpy as np
import torch

SPLIT: Final = 0
TRAIN: Final = 1
VALID: Final = 2
TEST: Final = 3
SIMULATION: Final = 4
LABELS: Final = 5


def generator(seed: int, stream: int, epoch: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """Generator whose state depends on `(seed, stream, epoch)` only.

    Args:
        seed: The user's seed, an integer >= 0.
        stream: What the numbers are for; one of this module's constants.
        epoch: The epoch they are for, an integer >= 0.
        device: Where they are drawn.

    Raises:
        ValueError: If `seed` or `epoch` is not an integer >= 0.
    """
    for name, value in (("seed", seed), ("epoch", epoch)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
            raise ValueError(f"expected {name} to be an integer >= 0, got {value!r}; try {name}=0")
    # SeedSequence mixes the counters, so that neighbouring seeds and epochs give unrelated streams.
    state = np.random.SeedSequence((int(seed), stream, int(epoch))).generate_state(1, np.uint32)
    return torch.Generator(device=device).manual_seed(int(state[0]))
