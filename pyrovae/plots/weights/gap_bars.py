"""Losses of the ELBO, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ..style import LINES, canvas, number

COLUMN = 1.05  # inches of a part's figures


def plot_gap_bars(gaps: Mapping[str, Mapping[str, tuple[float, float]]], ax: Axes | None = None) -> Axes:
    """Stacked bars of what the ELBO loses, nats per datum: one bar a model, one part a colour.

    The figures stand beside the bars, in a column of the part's colour: parts may be narrower than their figures.

    Args:
        gaps: label to parts (approximation, amortisation, ...) to (nats, standard error).
        ax: to draw into; the columns are at its right.

    Raises:
        ValueError: for no bars, or bars with different parts.
    """
    if not gaps or len({tuple(parts) for parts in gaps.values()}) != 1:
        raise ValueError(f"expected bars with the same parts, got {[list(p) for p in gaps.values()]}")
    parts = list(next(iter(gaps.values())))
    labels = list(gaps)
    with canvas(ax, 3.0 + COLUMN * len(parts), 0.75 + 0.3 * len(labels)) as ax:
        left = [0.0] * len(labels)
        # An error that would read 0.00 takes two decimals more, as the table has them.
        digits = 4 if any(0 < error < 0.005 for bar in gaps.values() for _, error in bar.values()) else 2
        for column, (colour, part) in enumerate(zip(LINES, parts, strict=False)):
            widths = [gaps[label][part][0] for label in labels]
            ax.barh(labels, widths, left=left, height=0.6, color=colour, label=part)
            left = [a + w for a, w in zip(left, widths, strict=True)]
            place: dict[str, Any] = {"va": "center", "color": colour, "annotation_clip": False}
            across = 72 * COLUMN * (column + 1)
            for i, label in enumerate(labels):
                value, error = gaps[label][part]
                text = f"{number(value, digits)} ± {number(error, digits)}"
                at: dict[str, Any] = {
                    "xycoords": ("axes fraction", "data"),
                    "textcoords": "offset points",
                    "fontsize": 7,
                }
                ax.annotate(text, (1, i), (across, 0), ha="right", **at, **place)
            head: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 7}
            ax.annotate(part, (1, 1), (across, 3), ha="right", weight="bold", **head, **place)
        ax.invert_yaxis()
        ax.grid(False, axis="y")
        ax.xaxis.set_major_locator(MaxNLocator(4))  # small numbers are long: more of them touch
        ax.set_xlabel("ln p(x) − ELBO [nats per datum]")
    return ax
