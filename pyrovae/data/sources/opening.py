"""Opening of what people bring: a path becomes the content of its file, an annotated matrix its table."""

from __future__ import annotations

import os
from typing import Any

from ...files import expanded
from .. import files
from ..files import read_file
from .h5ad import SUFFIX, frame_of, is_anndata, read_h5ad

SUFFIXES = (*files.SUFFIXES, SUFFIX)


def opened(
    source: Any, layer: str | None = None, label: str | None = None, needed: bool = False
) -> tuple[str, Any]:
    """The source's name, and its content; other objects stay what they are.

    Args:
        source: a path, an annotated matrix, or any other object.
        layer: of an annotated matrix, in place of X.
        label: column of its obs that is put behind the others.
        needed: refuse one without that column.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file that cannot be read, or a layer of what has none.
    """
    name = type(source).__name__
    if is_anndata(source):
        return name, frame_of(source, layer, label, needed)
    path = expanded(source) if isinstance(source, str | os.PathLike) else None
    if path is not None and path.suffix.lower() == SUFFIX:
        if not path.is_file():
            raise FileNotFoundError(f"expected an .h5ad file at {path}, found none")
        return path.name, read_h5ad(path, layer, label, needed)
    if layer is not None:
        raise ValueError(
            f"expected an .h5ad file, whose layer {layer!r} to take, got {name if path is None else path}; try without"
        )
    return (name, source) if path is None else (path.name, read_file(path))
