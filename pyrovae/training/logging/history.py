"""The history of a fit as a table on disk."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from ...files import write_whole
from ...results import Row as Row


def write_history(path: str | os.PathLike[str], history: Sequence[Row]) -> None:
    """Writes one line an epoch, whole or not at all.

    Nothing in it depends on the clock: a resumed run writes the same file as one that was never
    interrupted.
    """
    target = Path(path)
    for leftover in target.parent.glob(f".{target.stem}-*{target.suffix}"):  # of a killed process
        leftover.unlink(missing_ok=True)
    columns = list(dict.fromkeys(k for row in history for k in row))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(history)
    write_whole(target, text.getvalue())
