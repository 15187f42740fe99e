"""Columns of a table, two by two: data beside draws of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from ...text import listed
from ..style import BLUE, ORANGE, STYLE, new_figure, plain

MOST = 5  # columns
BINS = 30
TAIL = 0.01  # of the draws may lie beyond the frame on either side
DOTS: dict[str, Any] = {"ms": 1.5, "alpha": 0.4, "ls": "none", "marker": "o", "mew": 0}

Array = NDArray[np.float64]


def plot_pairs(
    x: Tensor,
    draws: Tensor,
    columns: Sequence[str],
    *,
    logs: Sequence[bool] | None = None,
    words: Sequence[Sequence[str] | None] | None = None,
) -> Figure:
    """Marginals of the first 5 columns on the diagonal, their pairs below; missing values are left out.

    Frames hold all data, and all draws but their outer hundredths.

    Args:
        x: data `[N, D]`, NaN where missing.
        draws: of the model `[M, D]`.
        columns: names of the columns.
        logs: whether a column is drawn on a logarithmic axis; default: none.
        words: names of a column's categories 0, 1, ..., which are drawn as bars, and in pairs beside each other.

    Raises:
        ValueError: no rows, other shapes, or draws that are not finite.
    """
    if x.dim() != 2 or draws.dim() != 2 or not x.shape[1] == draws.shape[1] == len(columns) or not len(x):
        raise ValueError(
            f"expected data [N, D], draws [M, D] and D names, got {list(x.shape)}, {list(draws.shape)} and "
            f"{len(columns)} names ({listed(columns)})"
        )
    if not len(draws) or not draws.isfinite().all():
        raise ValueError(f"expected finite draws, got {int((~draws.isfinite()).sum())} values that are not")
    import matplotlib

    shown = range(min(len(columns), MOST))
    both = [
        (x[:, d].detach().cpu().double().numpy(), draws[:, d].detach().cpu().double().numpy()) for d in shown
    ]
    names = [None if words is None else [plain(w) for w in words[d] or ()] for d in shown]
    titles = [plain(columns[d]) for d in shown]
    log = [bool(logs is not None and logs[d]) and not names[d] for d in shown]
    frames = [_frame(*both[d], log[d], names[d]) for d in shown]
    with matplotlib.rc_context(STYLE):
        figure = new_figure(1.5 * len(shown) + 0.4, 1.5 * len(shown) + 0.4)
        for row in shown:
            for column in range(row + 1):
                ax = figure.add_subplot(len(shown), len(shown), row * len(shown) + column + 1)
                if log[column]:
                    ax.set_xscale("log")
                ax.set_xlim(*frames[column])
                if row == column:
                    _marginal(ax, *both[row], frames[row], log[row], names[row])
                else:
                    if log[row]:
                        ax.set_yscale("log")
                    ax.set_ylim(*frames[row])
                    _pair(ax, [both[column], both[row]], names[column], names[row])
                for axis, d in ((ax.xaxis, column), (ax.yaxis, row)):
                    if not names[d] and not log[d] and (axis is ax.xaxis or row != column):
                        axis.set_major_locator(MaxNLocator(3))
                last = row == len(shown) - 1
                ax.set_xlabel(titles[column] if last else "")
                ax.tick_params(labelbottom=last, labelleft=column == 0 and row > 0)
                if column == 0 and row > 0:
                    ax.set_ylabel(titles[row])
        left_out = f"the first {len(shown)} of {len(columns)} columns" if len(shown) < len(columns) else None
        entries = figure.axes[0].get_legend_handles_labels()
        figure.legend(*entries, loc="outside upper right", ncols=2, title=left_out)
    return figure


def _frame(x: Array, draws: Array, log: bool, words: Sequence[str] | None) -> tuple[float, float]:
    if words:
        return -0.6, len(words) - 0.4
    held = x[np.isfinite(x)]
    ends = np.concatenate([held, np.quantile(draws, [TAIL, 1 - TAIL])])
    if log:
        ends = ends[ends > 0]
        low, high = (ends.min(), ends.max()) if len(ends) else (0.1, 1.0)
        room = np.exp(0.05 * (np.log(high) - np.log(low))) if high > low else 2.0
        return float(low / room), float(high * room)
    room = 0.05 * (np.ptp(ends) or abs(ends[0]) or 1.0)
    return float(ends.min() - room), float(ends.max() + room)


def _marginal(
    ax: Axes, x: Array, draws: Array, frame: tuple[float, float], log: bool, words: Sequence[str] | None
) -> None:
    """Shares of data and draws in bins, or in categories."""
    ax.set_yticks([])
    for side, (values, name, colour) in enumerate(((x, "data", BLUE), (draws, "draws", ORANGE))):
        held = values[np.isfinite(values)]
        if words:
            share = np.bincount(held.astype(int), minlength=len(words)) / max(1, len(held))
            ax.bar(np.arange(len(words)) + 0.4 * side - 0.2, share, 0.38, color=colour, label=name)
            ax.set_xticks(range(len(words)), list(words))
            continue
        edges = np.geomspace(*frame, BINS + 1) if log else np.linspace(*frame, BINS + 1)
        share = np.histogram(held, edges)[0] / max(1, len(held))
        ax.stairs(share, edges, color=colour, label=name)


def _pair(
    ax: Axes, pairs: Sequence[tuple[Array, Array]], across: Sequence[str] | None, up: Sequence[str] | None
) -> None:
    """Dots of data and draws; categories are spread, the two beside each other."""
    random = np.random.default_rng(0)
    for side, colour in enumerate((BLUE, ORANGE)):
        a, b = pairs[0][side], pairs[1][side]
        if across:
            a = a + 0.4 * side - 0.2 + random.uniform(-0.15, 0.15, len(a))
        if up:
            b = b + random.uniform(-0.25, 0.25, len(b))
        ax.plot(a, b, color=colour, **DOTS)
    if across:
        ax.set_xticks(range(len(across)), list(across))
    if up:
        ax.set_yticks(range(len(up)), list(up))
