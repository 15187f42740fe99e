"""Arrays of what was drawn, as files; in what form data are drawn, and which pairs."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pyrovae.data import Dataset, DataSpec
from pyrovae.data.tables.columns import features
from pyrovae.files import write_whole


def example(data: Dataset, number: int) -> tuple[Tensor, ...]:
    """`(x, *context)` in whose form so many data are drawn: the contexts of training data, in their order."""
    return tuple(t[: 1 if data.context is None else number] for t in data.arguments("train"))


def write_arrays(path: Path, arrays: Mapping[str, Tensor], weights_hash: str) -> None:
    """Writes tensors as an .npz file, whole or not at all, with the hash of the weights that they are of."""
    content = io.BytesIO()
    plain: dict[str, Any] = {k: v.cpu().numpy() for k, v in arrays.items()}
    np.savez(content, weights_hash=np.array(weights_hash), **plain)
    write_whole(path, content.getvalue())


def unlike_pairs(num_data: int, labels: Tensor | None, num_pairs: int = 4) -> list[tuple[int, int]]:
    """The first pairs of data of different classes; each datum once.

    Raises:
        ValueError: for fewer than two data.
    """
    if num_data < 2:
        raise ValueError(f"expected at least 2 data to go between, got {num_data}")
    classes = None if labels is None else labels.tolist()
    left = list(range(num_data))
    pairs: list[tuple[int, int]] = []
    while len(left) > 1 and len(pairs) < num_pairs:
        a = left.pop(0)
        b = next((i for i in left if classes is None or classes[i] != classes[a]), left[0])
        left.remove(b)
        pairs.append((a, b))
    return pairs


def columns_of(spec: DataSpec) -> dict[str, Any]:
    """Names of the columns of rows of numbers, which are logarithmic, and words of categories: as plots take them."""
    columns = spec.columns or tuple(f"x_{d + 1}" for d in range(spec.event_shape[0]))
    logs: Sequence[bool] | None = None if spec.standardization is None else spec.standardization.log
    if spec.table is None:
        return {"columns": columns, "logs": logs}
    own = features(spec.table)
    if logs is None:
        logs = [c.role == "positive" for c in own]
    return {"columns": columns, "logs": logs, "words": [c.words if c.categories else None for c in own]}
