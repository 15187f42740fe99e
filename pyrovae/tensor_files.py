"""Tensors on disk: safetensors with text beside them, and a hash of what they are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from .files import check_claim, write_whole
from .json_files import parse_json

LARGEST_HEADER = 100_000_000  # bytes; the format allows no more


class DamagedFile(ValueError):
    """A file that was read and is no whole file of tensors."""


def hash_of_tensors(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """SHA-256 of names, dtypes, shapes and bytes, in the order of the names; and of `text`.

    Of the tensors and not of a file: the same tensors may be written as different bytes.
    """
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(repr((name, str(value.dtype), tuple(value.shape))).encode())
        # Bytes, for NumPy has no bfloat16.
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Writes a safetensors file, whole or not at all.

    Raises:
        OSError: where it cannot be written; what was at `path` is untouched.
    """
    # Clones: safetensors refuses tensors that share memory.
    whole = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    # In memory first: an error of the disk is then an OSError, with its number and file.
    write_whole(path, safetensors.torch.save(whole, dict(metadata)))


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors (on the CPU) and metadata of a safetensors file.

    Raises:
        DamagedFile: for what was read and is no whole safetensors file.
        OSError: for what could not be read, which says nothing of the file: too many open files, say.
    """
    _check_header(Path(path))
    try:
        content = Path(path).read_bytes()
        header = parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = header.get("__metadata__") or {}
        tensors = {k: v.clone() for k, v in safetensors.torch.load(content).items()}
        return tensors, {str(k): str(v) for k, v in metadata.items()}
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedFile(str(error)) from None


def _check_header(path: Path) -> None:
    """Refuses sizes that cannot be, before the file is read: of the header, and of all it may hold here."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = int.from_bytes(file.read(8), "little")
    if not 8 <= 8 + header <= size or header > LARGEST_HEADER:
        raise DamagedFile(f"a header of {header:,} bytes in a file of {size:,}")
    check_claim(path, size)
