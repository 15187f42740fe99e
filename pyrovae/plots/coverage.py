"""How often intervals cover, and how often they are refused."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from ..evidence.coverage import Coverage
from .style import GREY, LINES, STYLE, new_figure


def plot_coverage(points: Sequence[Coverage]) -> Figure:
    """Coverage of all intervals, and the share that the diagnostics refuse, against the log-variance of the weights.

    Coverage is unconditional: to leave out the refused ones would be to select the lucky runs.

    Args:
        points: of `interval_coverage`.

    Raises:
        ValueError: for no points.
    """
    if not points:
        raise ValueError("expected points of interval_coverage, got none")
    names = list(dict.fromkeys(p.estimator for p in points))
    level, repeats = points[0].level, points[0].repeats
    with matplotlib.rc_context(STYLE):
        figure = new_figure(6.0, 2.5)
        left, right = figure.subplots(1, 2)
        for i, (colour, marker, name) in enumerate(zip(LINES, "osv^D", names, strict=False)):
            # Side by side and hollow: curves that agree are still all seen.
            look = {"color": colour, "label": name, "markerfacecolor": colour if i == 0 else "white"}
            own = [p for p in points if p.estimator == name]
            x, covered = [p.variance * 1.07**i for p in own], [p.covered for p in own]
            bars = [2 * (c * (1 - c) / repeats) ** 0.5 for c in covered]
            left.errorbar(x, covered, yerr=bars, fmt=f"{marker}-", capsize=2, **look)
            right.plot(x, [p.refused for p in own], f"{marker}-", clip_on=False, **look)
        left.axhline(level, color=GREY, linestyle="--", linewidth=0.9, label=f"nominal {level:.0%}")
        left.set_ylabel("coverage of all intervals")
        left.set_ylim(min(0.4, *(p.covered for p in points)) - 0.02, 1.0)
        right.set_ylabel("share refused by the diagnostics")
        right.set_ylim(0, 1)
        for ax in (left, right):
            ax.set_xscale("log")
            ax.set_xlabel("σ² of ln w")
        left.legend(loc="lower left")
    return figure
