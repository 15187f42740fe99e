"""The picture of an evidence."""

from __future__ import annotations

import functools
from collections.abc import Callable

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ...results import EvidenceLike
from ..checks import single, weighed
from ..style import STYLE, new_figure
from .elbo_vs_is import plot_elbo_vs_is
from .extrapolation import plot_extrapolation
from .khat import plot_khat
from .lk_curve import plot_lk_curve
from .per_datum import plot_per_datum
from .worst import plot_worst


def plot_evidence(ev: EvidenceLike, image_shape: tuple[int, int] | None = None) -> Figure:
    """L_K against 1/K, its extrapolation, ELBO against IS per datum and the k-hat histogram, side by side;
    below, the worst- and the best-estimated data where they are images; each where it can be had.

    L_K is of IS, the extrapolation of the jackknife; the others are of `Adaptive` or `OwnIS`, where these are there,
    else of IS, else of another estimator. Where none has weights and none can be held against the ELBO, it is a
    histogram of the estimates.

    Args:
        ev: of any estimators.
        image_shape: height and width, where the data are images.

    Raises:
        ValueError: no evidence; data that are no such images; no finite estimate.
    """
    single(ev)
    held, name = ev.estimates, weighed(ev)
    against = name or next((n for n in reversed(list(held)) if not n.startswith("ELBO")), None)
    panels: list[Callable[..., Axes]] = [plot_lk_curve] if "IS" in held else []
    panels += [plot_extrapolation] if "Jackknife" in held and "IS" in held else []
    panels += [functools.partial(plot_elbo_vs_is, name=against)] if "ELBO" in held and against else []
    panels += [functools.partial(plot_khat, name=name)] if name else []
    panels = panels or [plot_per_datum]
    shown = image_shape if name else None
    with matplotlib.rc_context(STYLE):
        figure = new_figure(2.6 * len(panels) + 0.3, 2.6 if shown is None else 4.0)
        rows = 1 if shown is None else 2
        grid = figure.add_gridspec(rows, len(panels), height_ratios=[2.6, 1.4][:rows])
        for i, panel in enumerate(panels):
            panel(ev, ax=figure.add_subplot(grid[0, i]))
        if shown is not None and name:
            plot_worst(ev, shown, name=name, ax=figure.add_subplot(grid[1, :]))
    return figure
