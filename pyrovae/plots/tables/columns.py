"""Values of a table's columns against their reconstructions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ...text import listed
from ..style import BLUE, GREY, STYLE, new_figure, plain

WIDE = 4  # panels in a row
MOST = 12  # panels


def plot_columns(
    x: Tensor,
    mean: Tensor,
    columns: Sequence[str],
    *,
    logs: Sequence[bool] | None = None,
    words: Sequence[Sequence[str] | None] | None = None,
) -> Figure:
    """One panel a column: E[x'|z] against x, the first 12 columns; missing values are left out.

    Args:
        x: rows `[N, D]`, NaN where missing.
        mean: their reconstructions `[N, D]`.
        columns: names of the columns.
        logs: whether a column is drawn on logarithmic axes; default: none.
        words: names of a column's categories 0, 1, ..., whose dots then have areas by their numbers of rows.

    Raises:
        ValueError: no rows, or other shapes.
    """
    if x.dim() != 2 or x.shape != mean.shape or len(columns) != x.shape[1]:
        raise ValueError(
            f"expected rows [N, D], as many reconstructions and D names, got {list(x.shape)}, {list(mean.shape)} and "
            f"{len(columns)} names ({listed(columns)})"
        )
    import matplotlib

    x, mean = x.detach().cpu().double(), mean.detach().cpu().double()
    shown = min(len(columns), MOST)
    wide = min(shown, WIDE)
    drawn = ["E[x'|z]" if words is None or words[d] is None else "most probable x'" for d in range(shown)]
    high = math.ceil(shown / wide)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(2.1 * wide, 2.1 * high)
        for d in range(shown):
            ax = figure.add_subplot(high, wide, d + 1)
            held = ~x[:, d].isnan()
            own, made = x[held, d], mean[held, d]
            if words is not None and words[d] is not None:
                _categories(ax, own, made, [plain(w) for w in words[d] or ()])
            elif len(own):
                ax.plot(own.numpy(), made.numpy(), "o", ms=2, color=BLUE, alpha=0.5)
                ends = [float(own.min()), float(own.max())]
                ax.plot(ends, ends, color=GREY, lw=0.8)
            if logs is not None and logs[d]:
                ax.set_xscale("log")
                ax.set_yscale("log")
            ax.set_title(plain(columns[d]))
            if d >= shown - wide:
                ax.set_xlabel("x")
            # One label for a row of panels, and one wherever another figure is drawn than to the left.
            if d % wide == 0 or drawn[d] != drawn[d - 1]:
                ax.set_ylabel(drawn[d])
    return figure


def _categories(ax: Axes, x: Tensor, mean: Tensor, words: list[str]) -> None:
    """Dots at the pairs of a category and the most probable one, of areas by how many rows there are."""
    pairs, counts = torch.stack([x, mean], 1).unique(dim=0, return_counts=True)
    sizes = 150 * counts / max(1, int(counts.max()))
    ax.scatter(pairs[:, 0].numpy(), pairs[:, 1].numpy(), s=sizes.numpy(), color=BLUE)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_ticks(range(len(words)), words)
    ax.margins(0.2)
