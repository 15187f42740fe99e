"""The picture of an evidence."""

from __future__ import annotations

import matplotlib
from matplotlib.figure import Figure

from ..evidence import Evidence
from .checks import estimate_of
from .elbo_vs_is import plot_elbo_vs_is
from .khat import plot_khat
from .lk_curve import plot_lk_curve
from .style import STYLE, new_figure


def plot_evidence(ev: Evidence) -> Figure:
    """L_K against 1/K, ELBO against IS per datum, and the k-hat histogram, side by side.

    Args:
        ev: with `"IS"`; the second panel is left out where there is no `"ELBO"`.

    Raises:
        ValueError: without IS.
    """
    estimate_of(ev, "IS", "its figure")
    panels = [plot_lk_curve, plot_elbo_vs_is, plot_khat] if "ELBO" in ev else [plot_lk_curve, plot_khat]
    with matplotlib.rc_context(STYLE):
        figure = new_figure(2.6 * len(panels), 2.6)
        for i, panel in enumerate(panels):
            panel(ev, figure.add_subplot(1, len(panels), i + 1))
    return figure
