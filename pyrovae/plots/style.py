"""The look that all figures share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from ..text import visible

# Okabe & Ito (2008), https://jfly.uni-koeln.de/color/: told apart under all common colour blindness.
BLUE, ORANGE, GREEN, *_, BLACK = LINES = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#E69F00",
    "#000000",
)
# Ten classes need more than those; the signs of neighbours differ too, for eyes that see fewer colours.
CLASSES = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D62728",
    "#CC79A7",
    "#56B4E9",
    "#000000",
    "#8C564B",
    "#7F3FBF",
    "#97A800",
)
SIGNS = ("o", "^")
GREY = "#666666"

# Any: matplotlib's stubs list the names of one version.
STYLE: Any = {
    "font.size": 8,
    "axes.labelsize": 8,
    "axes.titlesize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    # Lines pass behind a legend, not through it.
    "legend.facecolor": "white",
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "legend.handlelength": 1.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "axes.prop_cycle": cycler(color=LINES),
    # Text in a PDF stays text: type 3 fonts are refused by many journals.
    "pdf.fonttype": 42,
}


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches that no display and no pyplot registry knows of."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@contextmanager
def canvas(ax: Axes | None, width: float = 3.4, height: float = 2.6) -> Iterator[Axes]:
    """Yields `ax`, in its owner's style; or, for None, new Axes in the style of this package."""
    if ax is not None:
        yield ax
        return
    with matplotlib.rc_context(STYLE):
        yield new_figure(width, height).add_subplot()


def focus(ax: Axes, curves: Sequence[Sequence[float]]) -> None:
    """Limits y to what follows the first tenth of training, where that start would flatten the rest.

    The curves stay whole and enter from below.
    """
    late = [y for c in curves for y in list(c)[len(c) // 10 :] if _finite(y)]
    every = [y for c in curves for y in c if _finite(y)]
    if not late:
        return
    low, high = min(late), max(every)
    if high - min(every) > 1.5 * (high - low) > 0:
        pad = 0.05 * (high - low)
        ax.set_ylim(low - pad, high + pad)


def ticks_at(ax: Axes, values: Sequence[float], most: int = 6) -> None:
    """Ticks of a log axis at the values drawn, or at some of them, evenly, where they are many."""
    chosen = sorted(set(values))
    if len(chosen) > most:
        last = len(chosen) - 1
        chosen = [chosen[round(i * last / (most - 1))] for i in range(most)]
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xticks(chosen, [f"{v:,.0f}" for v in chosen])


def epochs_axis(ax: Axes) -> None:
    """Ticks at whole epochs."""
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))


def number(value: float, digits: int = 2) -> str:
    """A figure with the minus sign that the axes use."""
    return f"{value:.{digits}f}".replace("-", "−")


def plain(name: str) -> str:
    """A name from data as it is written: a $ in it begins no formula, and a control character is written out."""
    return visible(name).replace("$", r"\$")


def _finite(value: float) -> bool:
    return abs(value) < float("inf")
