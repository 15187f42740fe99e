"""The picture of an evidence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...results import EvidenceLike
from ..checks import estimate_of
from ..style import STYLE, new_figure
from .elbo_vs_is import plot_elbo_vs_is
from .extrapolation import plot_extrapolation
from .khat import plot_khat
from .lk_curve import plot_lk_curve
from .worst import plot_worst


def plot_evidence(ev: EvidenceLike, image_shape: tuple[int, int] | None = None) -> Figure:
    """L_K against 1/K, its extrapolation, ELBO against IS per datum and the k-hat histogram, side by side;
    below, the worst- and the best-estimated data where they are images.

    The extrapolation is shown where the jackknife was asked for, ELBO against IS where the ELBO was.

    Args:
        ev: with `"IS"`.
        image_shape: height and width, where the data are images.

    Raises:
        ValueError: without IS; for data that are no such images.
    """
    estimate_of(ev, "IS", "its figure")
    panels: list[Callable[[Any, Axes], Axes]] = [plot_lk_curve]
    panels += [plot_extrapolation] if "Jackknife" in ev else []
    panels += [plot_elbo_vs_is] if "ELBO" in ev else []
    panels += [plot_khat]
    with matplotlib.rc_context(STYLE):
        figure = new_figure(2.6 * len(panels) + 0.3, 2.6 if image_shape is None else 4.0)
        rows = 1 if image_shape is None else 2
        grid = figure.add_gridspec(rows, len(panels), height_ratios=[2.6, 1.4][:rows])
        for i, panel in enumerate(panels):
            panel(ev, figure.add_subplot(grid[0, i]))
        if image_shape is not None:
            plot_worst(ev, image_shape, ax=figure.add_subplot(grid[1, :]))
    return figure
