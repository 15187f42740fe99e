"""The history of a run, read back."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from ..results import Row

LARGEST = 1 << 28  # bytes, of a million epochs


def read_history(path: str | os.PathLike[str]) -> list[Row]:
    """Rows of metrics.csv, one an epoch; figures that a row does not have are left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a damaged file, or one with text where figures belong.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"expected the history of a run, got {file}, which does not exist")
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError(f"it has {file.stat().st_size:,} bytes")
        with file.open(newline="", encoding="utf-8") as f:
            rows = [
                {k: float(v) for k, v in row.items() if v != ""} for row in csv.DictReader(f, strict=True)
            ]
    except (ValueError, TypeError, csv.Error) as error:  # a missing cell is None, a superfluous one a list
        raise ValueError(f"expected a table of figures in {file}, got a damaged file ({error})") from None
    if not rows:
        raise ValueError(f"expected at least one epoch in {file}, got none: the file is damaged")
    return rows
