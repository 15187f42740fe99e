"""Histograms of work in both directions, which cross at the free-energy difference."""

from __future__ import annotations

import math

from matplotlib.axes import Axes

from ...results import WorkLike
from ..style import BLACK, BLUE, GREEN, ORANGE, canvas, number


def plot_work(
    work: WorkLike,
    ax: Axes | None = None,
    *,
    datum: int = 0,
    bins: int = 40,
    exact: float | None = None,
) -> Axes:
    """Density of W forward and of -W on the way back, for one simulated datum; nats.

    By Crooks's theorem they cross at Delta F = -ln p(x), whatever the speed (Crooks 1999,
    https://doi.org/10.1103/PhysRevE.60.2721); the band is Delta F by Bennett's acceptance ratio ± 2 errors.

    Args:
        work: of both directions.
        ax: to draw into.
        datum: which.
        bins: of the histograms.
        exact: ln p(x) of that datum, where it is known.

    Raises:
        ValueError: for a datum that is not there, or fewer than two bins.
    """
    if not 0 <= datum < work.forward.shape[1] or bins < 2:
        raise ValueError(
            f"expected a datum in 0 ... {work.forward.shape[1] - 1} and bins >= 2, got {datum} and {bins}"
        )
    forward, reverse, edges = work.histogram(datum, bins)
    try:
        delta, error = -float(work.bar.log_ratio[datum]), float(work.bar.variance[datum].sqrt())
    except ValueError:  # no datum's works overlap
        delta = error = math.nan
    with canvas(ax, 3.4, 2.6) as ax:
        for density, colour, label in ((forward, BLUE, "forward, p(W)"), (reverse, ORANGE, "reverse, p(−W)")):
            ax.stairs(density.tolist(), edges.tolist(), fill=True, color=colour, alpha=0.25)
            ax.stairs(density.tolist(), edges.tolist(), color=colour, linewidth=1.2, label=label)
        if math.isfinite(delta):
            ax.axvspan(delta - 2 * error, delta + 2 * error, color=GREEN, alpha=0.35, linewidth=0)
            ax.axvline(delta, color=GREEN, label=f"ΔF by BAR: {number(delta, 3)} ± {number(error, 3)}")
        else:
            ax.plot([], [], color=GREEN, label="no ΔF by BAR: works do not overlap")
        if exact is not None:
            ax.axvline(
                -exact, color=BLACK, linestyle="--", linewidth=0.9, label=f"−ln p(x): {number(-exact, 3)}"
            )
        ax.set_ylim(top=1.45 * float(max(forward.max(), reverse.max())))  # room for the legend
        ax.set_xlabel("work W [nats]")
        ax.set_ylabel("density [1/nat]")
        ax.legend(loc="upper right")
    return ax
