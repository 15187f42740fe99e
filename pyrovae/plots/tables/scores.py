"""Scores of rows, by kind of row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from ..style import LINES, canvas

BINS = 40


def plot_scores(
    scores: Mapping[str, Sequence[float]],
    label: str = "ln p(x) [nats]",
    bins: int = BINS,
    ax: Axes | None = None,
) -> Axes:
    """Histograms of ln p of rows, one for each kind of row, as shares of its rows.

    Args:
        scores: kind of row to the ln p of its rows, in nats.
        label: of the axis.
        bins: number of bins over all.
        ax: to draw into.

    Raises:
        ValueError: no kind, or one without a finite score.
    """
    finite = {kind: np.asarray(v, float)[np.isfinite(v)] for kind, v in scores.items()}
    if not finite or any(len(v) == 0 for v in finite.values()):
        raise ValueError("expected finite scores of one kind of rows at least, got none")
    # Rows far below would push all others into one bin: they share the first one.
    every = np.concatenate(list(finite.values()))
    low = float(np.quantile(every, 0.2))
    edges = np.linspace(low, float(every.max()), bins + 1)
    with canvas(ax, 4.2, 2.6) as axes:
        for (kind, values), colour in zip(finite.items(), LINES, strict=False):
            below = int((values < low).sum())
            named = f"{kind} ({len(values)}" + (f", {below} further left)" if below else ")")
            axes.hist(
                np.clip(values, low, None),
                edges.tolist(),
                weights=np.full(len(values), 1 / len(values)),
                color=colour,
                alpha=0.55,
                label=named,
            )
        axes.set_xlabel(label)
        axes.set_ylabel("share of rows")
        axes.legend()
    return axes
