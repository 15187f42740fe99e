"""A comparison as a data frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .entry import Entry


def frame_of(entries: Sequence[Entry], heads: tuple[str, ...]) -> Any:
    """`pandas.DataFrame`, one row a cell and estimator; figures in nats per datum.

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise ImportError("expected pandas for a data frame, got none; try pip install pandas") from None
    rows = [
        {
            **dict(zip(heads, entry.label, strict=True)),
            "seed": seed,
            "estimator": e.name,
            "log_evidence": e.log_evidence,
            "se_data": e.se_data,
            "se_mc": e.se_mc,
            "direction": e.direction,
            "certificate": e.certificate,
            "unreliable_share": e.unreliable_share if e.ess is not None else None,
            "num_samples": e.num_samples,
            "num_data": len(e.per_datum),
        }
        for entry in entries
        for seed, ev in entry.evidences.items()
        for e in ev.values()
    ]
    return pandas.DataFrame(rows)
