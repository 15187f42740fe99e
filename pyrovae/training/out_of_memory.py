"""A device without memory for a step: what to make smaller."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def memory_for(batch_size: int, device: torch.device, kept: bool) -> Iterator[None]:
    """Names, where memory ends in the body, the batch size and what can be lowered.

    Args:
        batch_size: of the steps.
        device: of the data.
        kept: whether there are checkpoints.

    Raises:
        torch.OutOfMemoryError: from the device's own.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        stands = "; the last checkpoint stands" if kept else ""
        own = " ".join(str(error).split())[:200]
        raise torch.OutOfMemoryError(
            f"expected memory for steps of batch_size={batch_size} on {device}, got out of memory; try a smaller "
            f"batch_size, accumulate=2 or more, fewer particles or smaller networks{stands} ({own})"
        ) from error
