"""Figures to files."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from ..files import write_whole
from .style import STYLE

SUFFIXES = (".png", ".pdf", ".svg")
DPI = 150


def save(
    figure: Figure | SubFigure | Axes, path: str | os.PathLike[str], weights_hash: str | None = None
) -> None:
    """Writes a figure (or the figure of these Axes), whole or not at all, at 150 dpi.

    Args:
        figure: what is drawn.
        path: .png, .pdf or .svg.
        weights_hash: of the weights that it shows; kept in the file's metadata.

    Raises:
        ValueError: for another suffix.
        OSError: where the folder does not exist or cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"expected a path ending in {', '.join(SUFFIXES)}, got {os.fspath(path)!r}")
    write_whole(path, drawn(figure, suffix, weights_hash))


def drawn(figure: Figure | SubFigure | Axes, suffix: str, weights_hash: str | None = None) -> bytes:
    """Content of the file that `save` writes.

    Raises:
        ValueError: for what is no figure.
    """
    root = figure.get_figure(root=True) if isinstance(figure, Axes) else figure
    if not isinstance(root, Figure):
        raise ValueError(f"expected a Figure or Axes, got {type(figure).__name__}")
    # Without a date, the same figure is the same file.
    dates: dict[str, dict[str, Any]] = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}, ".png": {}}
    metadata = dates[suffix]
    if weights_hash is not None:
        metadata["weights_hash" if suffix == ".png" else "Keywords"] = weights_hash
    content = io.BytesIO()
    # Ids of an SVG are drawn at random, unless they are salted.
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "pyrovae", "svg.fonttype": "none"}):
        # One pass of the layout does not settle Axes of a fixed aspect; the other is savefig's.
        if (layout := root.get_layout_engine()) is not None:
            layout.execute(root)
        root.savefig(content, format=suffix[1:], dpi=DPI, metadata=metadata)
    return content.getvalue()
