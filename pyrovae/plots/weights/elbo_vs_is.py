"""Loss of the ELBO, datum by datum."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes

from ...results import EvidenceLike
from ..checks import estimate_of, quantity
from ..style import BLUE, GREY, ORANGE, canvas, number

# Beyond this many points a vector figure is better off with a bitmap of them.
RASTER = 2000


def plot_elbo_vs_is(ev: EvidenceLike, ax: Axes | None = None, name: str = "IS") -> Axes:
    """ELBO (x) against importance-sampled evidence (y) for every datum, in nats; the height above
    the diagonal is what the ELBO loses.

    Colour tells where the weights support a two-sided statement (`Estimate.reliable`); data with an
    infinite estimate are counted, not drawn.

    Args:
        ev: with `"ELBO"` and that estimator.
        ax: to draw into.
        name: the estimator of ln p(x).

    Raises:
        ValueError: without both, or where no datum has two finite estimates.
    """
    elbo = estimate_of(ev, "ELBO", "the x axis")
    weighted = estimate_of(ev, name, "the y axis")
    x, y = elbo.per_datum.double().cpu(), weighted.per_datum.double().cpu()
    finite = torch.isfinite(x) & torch.isfinite(y)
    if not finite.any():
        raise ValueError("expected finite estimates, got ±inf or NaN for every datum")
    reliable = weighted.reliable.cpu()
    low = float(torch.minimum(x, y)[finite].min())
    high = float(torch.maximum(x, y)[finite].max())
    pad = 0.04 * (high - low) or 1.0
    with canvas(ax, 3.2, 3.2) as ax:
        ax.plot(
            [low - pad, high + pad],
            [low - pad, high + pad],
            color=GREY,
            linewidth=0.8,
            label=f"{name} = ELBO",
        )
        what = "interval" if weighted.khat is None else "weights"
        groups = ((~reliable, ORANGE, f"{what} unreliable"), (reliable, BLUE, f"{what} reliable"))
        for mask, colour, label in groups:
            shown = mask & finite
            if shown.any():
                ax.scatter(
                    x[shown].numpy(),
                    y[shown].numpy(),
                    s=7,
                    alpha=0.6,
                    color=colour,
                    linewidths=0,
                    label=f"{label} ({int(shown.sum()):,})",
                    rasterized=len(x) > RASTER,
                )
        hidden = int((~finite).sum())
        if hidden:
            ax.plot([], [], linestyle="none", label=f"not finite, not shown ({hidden:,})")
        ax.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad))
        ax.set_box_aspect(1)
        ax.set_xlabel("ELBO [nats]")
        ax.set_ylabel(f"{name} estimate of {quantity(weighted)} [nats]")
        of = f" ({int(finite.sum()):,} data)" if hidden else ""
        ax.set_title(f"mean gap {name} − ELBO: {number(float((y - x)[finite].mean()))} nats{of}")
        ax.legend(loc="lower right", handletextpad=0.4, borderaxespad=0.1)
    return ax
