"""Scalars for TensorBoard, where that package is installed."""

from __future__ import annotations

import math
import os
from collections.abc import Callable

from .history import Row


def tensorboard_writer(folder: str | os.PathLike[str]) -> Callable[[Row], None]:
    """A function for `on_epoch` that logs rows of the history, the epoch as their step.

    On resuming, what was logged from the first new epoch on is replaced.

    Raises:
        ImportError: without the package tensorboard.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            f"expected the package tensorboard, got none ({error}); try pip install 'pyrovae[tensorboard]'"
        ) from None
    writers: list[SummaryWriter] = []

    def log(row: Row) -> None:
        epoch = int(row["epoch"])
        if not writers:
            writers.append(SummaryWriter(str(folder), purge_step=epoch))
        for name, value in row.items():
            if name != "epoch" and not math.isnan(value):
                group, name = ("valid", name[6:]) if name.startswith("valid_") else ("train", name)
                writers[0].add_scalar(f"{name}/{group}", value, epoch)
        writers[0].flush()

    return log
