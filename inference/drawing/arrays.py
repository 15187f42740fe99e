"""Arrays of what was drawn, as files; and what data are drawn in the form of."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pyrovae.data import Dataset
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
