"""Figures to files."""

from __future__ import annotations

import io
import os
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from ..files import write_whole
from .style import STYLE

SUFFIXES = (".png", ".pdf")
DPI = 150


def save(figure: Figure | SubFigure | Axes, path: str | os.PathLike[str]) -> None:
    """Writes a figure (or the figure of these Axes), whole or not at all, at 150 dpi.

    Raises:
        ValueError: for a suffix other than .png and .pdf.
        OSError: where the folder does not exist or cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"expected a path ending in {' or '.join(SUFFIXES)}, got {os.fspath(path)!r}")
    root = figure.get_figure(root=True) if isinstance(figure, Axes) else figure
    if not isinstance(root, Figure):
        raise ValueError(f"expected a Figure or Axes, got {type(figure).__name__}")
    # Without a date, the same figure is the same file.
    metadata = {"CreationDate": None} if suffix == ".pdf" else None
    drawn = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        # One pass of the layout does not settle Axes of a fixed aspect.
        root.draw_without_rendering()
        root.savefig(drawn, format=suffix[1:], dpi=DPI, metadata=metadata)
    write_whole(path, drawn.getvalue())
