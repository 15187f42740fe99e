"""Whether the weights can be trusted."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes

from ...results import EvidenceLike
from ..checks import estimate_of
from ..style import BLACK, BLUE, ORANGE, canvas

MAX_BINS = 40


def plot_khat(ev: EvidenceLike, ax: Axes | None = None, name: str = "IS") -> Axes:
    """Histogram of the Pareto tail index k-hat of the importance weights over data.

    Above the threshold min(1 - 1/log10 K, 0.7) the error of a datum's estimate cannot be trusted
    (Vehtari et al. 2024, https://arxiv.org/abs/1507.02646). Shares are of all data, as in
    `Evidence.table()`; infinite values and NaN have no bar and are counted in the legend.

    Args:
        ev: with that estimator.
        ax: to draw into.
        name: the estimator asked.

    Raises:
        ValueError: without it, or without k-hat.
    """
    e = estimate_of(ev, name, "k-hat")
    if e.khat is None:
        raise ValueError("expected an estimate with k-hat, got one without")
    khat = e.khat.double().cpu().numpy()
    threshold = e.khat_threshold
    high = khat > threshold
    finite = khat[np.isfinite(khat)]
    with canvas(ax, 3.4, 2.6) as ax:
        edges = _edges(finite, threshold)
        for mask, colour, label in ((~high, BLUE, "≤"), (high, ORANGE, ">")):
            ax.hist(
                khat[mask & np.isfinite(khat)],
                bins=list(edges),
                color=colour,
                edgecolor="white",
                linewidth=0.4,
                label=f"{label} {threshold:.2f}: {(mask & ~np.isnan(khat)).mean():.0%} of data",
            )
        ax.axvline(threshold, color=BLACK, linestyle="--", linewidth=0.9)
        for mask, label in (
            (khat == np.inf, "+∞ (no usable weights)"),
            (khat == -np.inf, "−∞ (all weights equal)"),
            (np.isnan(khat), "undefined"),
        ):
            if mask.any():
                ax.plot([], [], linestyle="none", label=f"{label}: {int(mask.sum()):,}")
        of = "" if name == "IS" else f"of {name}, "
        ax.set_xlabel(f"Pareto $\\hat{{k}}$ of the weights ({of}K = {e.num_samples:,})")
        ax.set_ylabel("number of data")
        ax.locator_params(axis="x", nbins=6)
        ax.set_ylim(bottom=0)
        # Room above the bars, so that the legend hides none.
        ax.set_ylim(top=max(1.0, ax.get_ylim()[1]) * 1.25)
        ax.legend(loc="upper right")
    return ax


def _edges(finite: np.ndarray, threshold: float) -> np.ndarray:
    """Bin edges with one on the threshold, so that no bar is on both sides of it."""
    if len(finite) == 0:
        return np.array([threshold - 0.5, threshold, threshold + 0.5])
    low, top = min(finite.min(), threshold), max(finite.max(), threshold)
    auto = np.histogram_bin_edges(finite, bins="auto")
    width = max(auto[1] - auto[0], (top - low) / MAX_BINS, 1e-3)
    below, above = math.ceil((threshold - low) / width), math.floor((top - threshold) / width) + 1
    return threshold + width * np.arange(-max(below, 1), above + 1)
