"""Imputed values against those that were held out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ..style import BLACK, BLUE, GREY, STYLE, new_figure, plain

SHOWN = 80  # values of a column, so that their intervals can be told apart


def plot_imputations(columns: Mapping[str, Any], level: float = 0.9) -> Figure:
    """One panel a column: posterior means with their intervals, against the values that were held out.

    Args:
        columns: name to arrays `(truth, mean, low, high)`; of a positive column with large scales, their logarithms.
        level: probability of the intervals.

    Raises:
        ValueError: no column.
    """
    if not columns:
        raise ValueError("expected a column at least, got none")
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = new_figure(2.6 * len(columns), 2.6)
        for ax, (name, arrays) in zip(
            np.atleast_1d(figure.subplots(1, len(columns))), columns.items(), strict=True
        ):
            truth, mean, low, high = (np.asarray(a, float)[:SHOWN] for a in arrays)
            inside = (low <= truth) & (truth <= high)
            for chosen, colour in ((inside, BLUE), (~inside, BLACK)):
                errors = np.stack([(mean - low)[chosen], (high - mean)[chosen]]).clip(min=0)
                ax.errorbar(truth[chosen], mean[chosen], errors, fmt="o", ms=2, lw=0.6, color=colour)
            ends = [min(truth.min(), low.min()), max(truth.max(), high.max())]
            ax.plot(ends, ends, color=GREY, lw=0.8)
            ax.set_title(plain(name))
            ax.set_xlabel("held out")
        figure.axes[0].set_ylabel(f"imputed, {100 * level:g} % interval")
    return figure
