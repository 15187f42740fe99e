"""The picture of an evidence."""

from __future__ import annotations

import functools
from collections.abc import Callable

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...results import EvidenceLike, is_evidence
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

    L_K is of IS, where that was asked for, the extrapolation of the jackknife; the others are of `Adaptive` or `OwnIS`
    where these are there.

    Args:
        ev: with `"IS"`, `"OwnIS"` or `"Adaptive"`.
        image_shape: height and width, where the data are images.

    Raises:
        ValueError: without any of these; for data that are no such images.
    """
    held = ev.estimates if is_evidence(ev) else {}
    name = next((own for own in ("Adaptive", "OwnIS") if own in held), "IS")
    estimate_of(ev, name, "its figure")
    panels: list[Callable[..., Axes]] = [plot_lk_curve] if "IS" in ev else []
    panels += [plot_extrapolation] if "Jackknife" in ev and "IS" in ev else []
    panels += [functools.partial(plot_elbo_vs_is, name=name)] if "ELBO" in ev else []
    panels += [functools.partial(plot_khat, name=name)]
    with matplotlib.rc_context(STYLE):
        figure = new_figure(2.6 * len(panels) + 0.3, 2.6 if image_shape is None else 4.0)
        rows = 1 if image_shape is None else 2
        grid = figure.add_gridspec(rows, len(panels), height_ratios=[2.6, 1.4][:rows])
        for i, panel in enumerate(panels):
            panel(ev, ax=figure.add_subplot(grid[0, i]))
        if image_shape is not None:
            plot_worst(ev, image_shape, name=name, ax=figure.add_subplot(grid[1, :]))
    return figure
