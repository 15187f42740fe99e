"""Estimates of all data, where no weights are to be looked at."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from ...results import EvidenceLike, is_evidence
from ..checks import quantity
from ..style import LINES, canvas, number


def plot_per_datum(ev: EvidenceLike, ax: Axes | None = None) -> Axes:
    """Histogram over data of what each estimator says of ln p(x_n), in nats, with its mean ± standard error over data.

    Infinite estimates and NaN have no bar and are counted in the legend.

    Args:
        ev: with at most seven estimators.
        ax: to draw into.

    Raises:
        ValueError: no evidence, more estimators than can be told apart, or no finite estimate.
    """
    if not is_evidence(ev):
        raise ValueError(f"expected an Evidence (of pv.evidence), got {type(ev).__name__}")
    held = list(ev.estimates.values())
    if len(held) > len(LINES):
        raise ValueError(f"expected at most {len(LINES)} estimators in one picture, got {len(held)}")
    values = [e.per_datum.double().cpu().numpy() for e in held]
    finite = [v[np.isfinite(v)] for v in values]
    if not any(len(v) for v in finite):
        raise ValueError("expected finite estimates, got ±inf or NaN for every datum")
    edges = np.histogram_bin_edges(np.concatenate(finite), bins="auto")
    with canvas(ax, 3.4, 2.6) as ax:
        for colour, e, every, shown in zip(LINES, held, values, finite, strict=False):
            label = f"{e.name}: {number(e.log_evidence)} ± {number(e.se_data)}"
            hidden = len(every) - len(shown)
            label += f" (not finite, not shown: {hidden:,})" if hidden else ""
            ax.hist(shown, bins=list(edges), histtype="step", color=colour, linewidth=1.2, label=label)
        ax.set_xlabel(f"estimate of {quantity(held[0])} [nats]")
        ax.set_ylabel("number of data")
        # Room above the bars, so that the legend hides none.
        ax.set_ylim(0, max(1.0, ax.get_ylim()[1]) * (1.15 + 0.1 * len(held)))
        ax.legend(loc="upper left")
    return ax
