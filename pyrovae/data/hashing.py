"""Fingerprint of a data set."""

import hashlib
import sys

from torch import Tensor


def content_hash(splits: dict[str, Tensor]) -> str:
    """SHA-256 (hexadecimal) of the names, dtypes, shapes and values of CPU tensors, in the order given."""
    digest = hashlib.sha256()
    for name, x in splits.items():
        digest.update(f"{name} {x.dtype} {tuple(x.shape)}\n".encode())
        values = x.contiguous().numpy()
        digest.update((values.byteswap() if sys.byteorder == "big" else values).data)
    return digest.hexdigest()
