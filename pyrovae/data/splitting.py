"""Seeded splits of data that come without their own."""

import numpy as np
import torch
from torch import Tensor

from . import seeds
from .raw import Size


def count(size: Size, total: int, name: str) -> int:
    """Number of data in a split, from a count (int >= 1) or a fraction of `total` (float in (0, 1)).

    Raises:
        ValueError: If the size is neither, or leaves the split empty.
    """
    if isinstance(size, int | np.integer) and not isinstance(size, bool):
        n = int(size)
    elif isinstance(size, float | np.floating) and 0 < size < 1:
        n = round(float(size) * total)
    else:
        raise ValueError(
            f"expected {name} to be a number of data (int) or a fraction in (0, 1), got {size!r}; "
            f"try {name}=0.1"
        )
    if n < 1:
        raise ValueError(
            f"expected at least one datum in every split, got an empty split {name!r} "
            f"({name}={size!r} of {total}); try {name}=1 or more (command line: more data, or an .npz with train, "
            "valid and test)"
        )
    return n


def split_rows(total: int, sizes: dict[str, Size], seed: int) -> dict[str, Tensor]:
    """Shuffled row numbers of the split "train" and of each split in `sizes`.

    Args:
        total: Number of data to divide.
        sizes: Split -> count or fraction of `total`; "train" gets the rest.
        seed: Seed of the shuffle.

    Raises:
        ValueError: If a split, "train" included, would be empty.
    """
    counts = {name: count(size, total, name) for name, size in sizes.items()}
    left = total - sum(counts.values())
    if left < 1:
        asked = ", ".join(f"{name}={n}" for name, n in counts.items())
        raise ValueError(
            f"expected at least one datum in every split, got an empty split 'train' ({asked} of {total}); "
            "try smaller splits or more data"
        )
    rows = torch.randperm(total, generator=seeds.generator(seed, seeds.SPLIT), device="cpu")
    names = ["train", *counts]
    return dict(zip(names, rows.split([left, *counts.values()]), strict=True))
