"""A comparison as a data frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..evidence.frame import data_frame, row_of
from .entry import Entry


def frame_of(entries: Sequence[Entry], heads: tuple[str, ...]) -> Any:
    """`pandas.DataFrame`, one row a cell and estimator; figures in nats per datum.

    Raises:
        ImportError: pandas is not installed.
    """
    return data_frame(
        [
            {**dict(zip(heads, entry.label, strict=True)), "seed": seed, **row_of(e)}
            for entry in entries
            for seed, ev in entry.evidences.items()
            for e in ev.values()
        ]
    )
