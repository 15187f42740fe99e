"""Extrapolation of L_k as 1/k goes to 0."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from ...results import EvidenceLike
from ..checks import estimate_of, quantity
from ..style import BLACK, BLUE, GREY, ORANGE, canvas, number

POINTS = 4  # of the curve, those nearest to 1/k = 0


def plot_extrapolation(ev: EvidenceLike, ax: Axes | None = None) -> Axes:
    """The mean of L_k over data against 1/k (linear axis), and what it points at as 1/k goes to 0.

    L_k = ln p(x) - mu_2 / (2 mu^2 k) + O(k^-2): straight near 0 where weights have a finite variance
    and k is past it. The line is fitted to the last points of the curve; the jackknife takes the same
    first-order term off datum by datum (Nowozin 2018, https://openreview.net/forum?id=HyZoi-WRb).
    Where the two and the line's last points disagree, k is too small to extrapolate from.

    Args:
        ev: with `"IS"`; the jackknife's estimate, and an exact one, are shown where there are.
        ax: to draw into.

    Raises:
        ValueError: without IS, or with fewer than two finite points.
    """
    e = estimate_of(ev, "IS", "the extrapolation")
    points = [(k, v) for k, v in sorted((e.curve | {e.num_samples: e.log_evidence}).items())]
    points = [(k, v) for k, v in points if math.isfinite(v)][-POINTS:]
    if len(points) < 2:
        raise ValueError(f"expected at least two finite points of L_k to extrapolate, got {len(points)}")
    inverse = np.array([1 / k for k, _ in points])
    values = np.array([v for _, v in points])
    slope, at_zero = np.polyfit(inverse, values, 1)
    with canvas(ax, 3.4, 2.6) as ax:
        ax.plot(inverse, values, "o", color=BLUE, label=f"$L_k$, k = {points[0][0]:,} … {points[-1][0]:,}")
        ends = np.array([0.0, inverse[0]])
        ax.plot(ends, at_zero + slope * ends, color=GREY, linestyle="--", linewidth=0.9)
        ax.plot(0, at_zero, "s", color=GREY, clip_on=False, label=f"line at 0: {number(at_zero, 3)}")
        for name, colour, marker in (("Jackknife", ORANGE, "D"), ("Exact", BLACK, "*")):
            other = ev.estimates.get(name)
            value = other.log_evidence if other else e.log_evidence - e.bias_indicator
            if (other or name == "Jackknife") and math.isfinite(value):
                ax.errorbar(
                    [0],
                    [value],
                    yerr=[other.se_mc if other else e.se_mc],
                    fmt=marker,
                    color=colour,
                    markersize=7 if marker == "*" else 4,
                    clip_on=False,
                    zorder=4,
                    label=f"{name.lower()}: {number(value, 3)}",
                )
        ax.set_xlim(0, 1.08 * inverse[0])
        ax.xaxis.set_major_locator(MaxNLocator(4))  # small numbers are long: more of them touch
        ax.ticklabel_format(axis="y", useOffset=False)
        ax.set_xlabel("1/k (more samples to the left)")
        ax.set_ylabel(f"mean $L_k$ ≤ {quantity(e)} [nats per datum]")
        ax.legend(loc="upper right" if slope < 0 else "lower right")
    return ax
