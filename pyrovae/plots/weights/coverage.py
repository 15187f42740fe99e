"""How often intervals cover, and how often they are given."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from ...results import CoverageLike
from ..style import GREY, LINES, STYLE, new_figure


def plot_coverage(points: Sequence[CoverageLike]) -> Figure:
    """Coverage of the intervals that are given, and their share, against the log-variance of log-normal weights.

    Args:
        points: of `interval_coverage`, of one K; those of other laws are left out.

    Raises:
        ValueError: for no points of log-normal weights.
    """
    points = [p for p in points if p.law.family == "lognormal"]
    if not points:
        raise ValueError("expected points of interval_coverage on log-normal weights, got none")
    names = list(dict.fromkeys(p.estimator for p in points))
    level = points[0].level
    with matplotlib.rc_context(STYLE):
        figure = new_figure(6.0, 2.5)
        left, right = figure.subplots(1, 2)
        for i, (colour, marker, name) in enumerate(zip(LINES, "osv^D", names, strict=False)):
            # Side by side and hollow: curves that agree are still all seen.
            look = {"color": colour, "label": name, "markerfacecolor": colour if i == 0 else "white"}
            own = [p for p in points if p.estimator == name]
            x, covered = [p.law.parameter * 1.07**i for p in own], [p.covered for p in own]
            bars = [
                2 * (c * (1 - c) / max(1, p.given * p.repeats)) ** 0.5
                for c, p in zip(covered, own, strict=True)
            ]
            left.errorbar(x, covered, yerr=bars, fmt=f"{marker}-", capsize=2, **look)
            right.plot(x, [p.given for p in own], f"{marker}-", clip_on=False, **look)
        left.axhline(level, color=GREY, linestyle="--", linewidth=0.9, label=f"nominal {level:.0%}")
        left.set_ylabel("coverage of the intervals given")
        known = [p.covered for p in points if not math.isnan(p.covered)]
        left.set_ylim(min([0.8, *known]) - 0.02, 1.005)
        right.set_ylabel("share of intervals given")
        right.set_ylim(0, 1)
        ticks = sorted({p.law.parameter for p in points})
        for ax in (left, right):
            ax.set_xscale("log")
            ax.set_xlim(ticks[0] / 1.3, ticks[-1] * 1.3)
            ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
            ax.minorticks_off()
            ax.set_xlabel("σ² of ln w")
        left.legend(loc="lower left")
    return figure
