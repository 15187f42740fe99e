"""The hash by which data are known again."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from ..programs import tensors_in
from ..programs.arguments.marks import Marked, others_in


def data_hash(x: Tensor, *context: Any) -> str:
    """SHA-256 of the bytes, shape and dtype of the data and of context tensors, and of what context is beside."""
    h = hashlib.sha256()
    for tensor in tensors_in((x, *context)):
        h.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        plain = tensor.detach().contiguous().cpu()  # numpy knows no bfloat16
        h.update((plain.view(torch.int16) if plain.dtype == torch.bfloat16 else plain).numpy().tobytes())
    bare = tuple(c.value if isinstance(c, Marked) else c for c in context)  # marks are no data
    if not all(isinstance(c, Tensor) for c in bare):
        h.update(others_in(bare).encode())
    return h.hexdigest()
