"""Variational and Helmholtz free energy against temperature."""

from __future__ import annotations

from matplotlib.axes import Axes

from ...results import FreeEnergyLike
from ..style import BLUE, GREY, ORANGE, canvas


def plot_free_energies(free: FreeEnergyLike, ax: Axes | None = None) -> Axes:
    """F_q(T) and F_p(T) with what lies between them, T KL(q ‖ p_T), means over data in nats per datum.

    Bars are two Monte-Carlo standard errors. At T = 1 the two are -ELBO and -ln p(x).

    Args:
        free: at two temperatures or more.
        ax: to draw into.

    Raises:
        ValueError: for a single temperature.
    """
    if len(free.temperatures) < 2:
        raise ValueError("expected free energies at two temperatures or more, got one")
    t = free.temperatures.tolist()
    (fq, _, fq_se), (fp, _, fp_se) = free.mean("variational"), free.mean("helmholtz")
    with canvas(ax, 3.4, 2.6) as ax:
        ax.fill_between(
            t, fp.tolist(), fq.tolist(), color=GREY, alpha=0.18, linewidth=0, label="T KL(q ‖ p$_T$)"
        )
        for values, error, colour, label in (
            (fq, fq_se, ORANGE, "variational F$_q$"),
            (fp, fp_se, BLUE, f"Helmholtz F$_p$ ({free.estimator})"),
        ):
            ax.errorbar(
                t, values.tolist(), yerr=(2 * error).tolist(), fmt="o-", color=colour, label=label, capsize=2
            )
        if t[0] < 1 < t[-1]:
            ax.axvline(1, color=GREY, linestyle=":", linewidth=0.9)
            # Above the axes, where neither curves nor legend come.
            place = ax.get_xaxis_transform()
            ax.text(1, 1.01, "T = 1: −ELBO, −ln p(x)", transform=place, fontsize=7, color=GREY, ha="center")
        ax.set_xscale("log")
        ax.set_xticks(t, [f"{v:g}" for v in t])
        ax.minorticks_off()
        ax.set_xlabel("temperature T")
        ax.set_ylabel("free energy [nats per datum]")
        # Below the axes: with few temperatures there is no place that the curves leave free.
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.22), "ncols": 3, "columnspacing": 1.0}
        ax.legend(title="bars: ± 2 Monte-Carlo errors", title_fontsize=7, **below)
    return ax
