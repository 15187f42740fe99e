"""Estimates as data frames of pandas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .core.estimate import Estimate


def data_frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """`pandas.DataFrame` of rows.

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise ImportError("expected pandas for a data frame, got none; try pip install pandas") from None
    return pandas.DataFrame(rows)


def row_of(e: Estimate) -> dict[str, Any]:
    """Figures of an estimate over all data, nats per datum."""
    return {
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


def rows_per_datum(e: Estimate) -> list[dict[str, Any]]:
    """Figures of an estimate datum by datum, nats: whether each supports a two-sided statement is `reliable`."""
    columns = {
        "log_evidence": e.per_datum,
        "se_mc": e.variance.sqrt(),
        "ess": e.ess,
        "khat": e.khat,
        "reliable": e.reliable,
    }
    values = {name: None if column is None else column.tolist() for name, column in columns.items()}
    return [
        {"estimator": e.name, "datum": n, **{k: None if v is None else v[n] for k, v in values.items()}}
        for n in range(len(e.per_datum))
    ]
