"""Programs of a comparison, by their differences to the best."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.axes import Axes

from ...results import DifferenceLike
from ..style import BLUE, GREY, canvas


def plot_differences(differences: Mapping[str, DifferenceLike], best: str, ax: Axes | None = None) -> Axes:
    """Paired differences to the best program, one line a program, in nats per datum.

    The bar is two standard errors: dark over the data, light with the spread over seeds. Each seed is a small dot.

    Args:
        differences: by program.
        best: name of the best, which is the line at 0.
        ax: to draw into.
    """
    names = [best, *sorted(differences, key=lambda n: -differences[n].mean)]
    with canvas(ax, 4.6, 0.9 + 0.24 * len(names)) as ax:
        ax.axvline(0.0, color=GREY, linewidth=0.8)
        for i, name in enumerate(names[1:], start=1):
            d = differences[name]
            if math.isfinite(d.mean) and math.isfinite(d.se):
                ax.plot([d.mean - 2 * d.se, d.mean + 2 * d.se], [i, i], color=BLUE, alpha=0.35, linewidth=3)
            if math.isfinite(d.mean) and math.isfinite(d.se_data):
                ax.plot([d.mean - 2 * d.se_data, d.mean + 2 * d.se_data], [i, i], color=BLUE)
            ax.plot([d.mean], [i], "o", color=BLUE)
            if len(d.per_seed) > 1:
                ax.plot(d.per_seed, [i] * len(d.per_seed), "|", color=GREY, markersize=6)
        ax.plot([0.0], [0], "s", color=BLUE)
        ax.set_yticks(range(len(names)), labels=names)
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel("difference to the best [nats per datum]\n± 2 standard errors")
    return ax
