"""Two bounds that close in as the effort grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from torch import Tensor

from ..style import BLACK, BLUE, GREY, LINES, ORANGE, canvas, number, ticks_at


def plot_sandwich(
    efforts: Sequence[int],
    lower: Sequence[Tensor],
    upper: Sequence[Tensor],
    ax: Axes | None = None,
    *,
    exact: Tensor | None = None,
    xlabel: str = "number of temperatures",
) -> Axes:
    """Mean lower and upper bound of ln p(x) against the effort, nats per datum, on SIMULATED data.

    Bars are two standard errors of the paired gap's halves: of what differs between the bounds, not
    of the data (Grosse et al. 2015, https://arxiv.org/abs/1511.02543).

    Args:
        efforts: temperatures (or samples) of each pair, rising.
        lower, upper: bounds of ln p(x_n), each `[N]`, one a pair.
        ax: to draw into.
        exact: ln p(x_n), `[N]`, where it is known.
        xlabel: what the effort is.

    Raises:
        ValueError: for no pairs, or of other numbers than efforts.
    """
    if not efforts or not len(efforts) == len(lower) == len(upper):
        raise ValueError(
            f"expected a lower and an upper bound for each effort, got {len(efforts)} efforts, {len(lower)} lower "
            f"and {len(upper)} upper"
        )
    low, high = ([float(t.double().mean()) for t in side] for side in (lower, upper))
    gaps = [(u - v).double().cpu() for u, v in zip(upper, lower, strict=True)]
    bars = [float(g.std() / len(g) ** 0.5) if len(g) > 1 else 0.0 for g in gaps]
    with canvas(ax, 3.4, 2.6) as ax:
        ax.fill_between(list(efforts), low, high, color=GREY, alpha=0.15, linewidth=0)
        for values, colour, label in ((high, ORANGE, "upper (reverse)"), (low, BLUE, "lower (forward)")):
            ax.errorbar(
                list(efforts),
                values,
                yerr=bars,
                fmt="o-",
                color=colour,
                label=label,
                capsize=2,
                clip_on=False,
            )
        if exact is not None:
            ax.axhline(
                float(exact.double().mean()), color=BLACK, linestyle="--", linewidth=0.9, label="exact"
            )
        ax.set_xscale("log")
        ticks_at(ax, efforts)
        ax.set_xlabel(xlabel)
        ax.set_ylabel("ln p(x) [nats per datum]")
        ax.set_title(f"last gap: {number(float(gaps[-1].mean()), 3)} ± {number(bars[-1], 3)} nats")
        ax.legend()
    return ax


def plot_rate_distortion(
    curves: Mapping[str, tuple[Tensor, Tensor]],
    ax: Axes | None = None,
    *,
    guides: Mapping[str, tuple[float, float]] | None = None,
) -> Axes:
    """Rate (nats) against distortion (nats), one line a model (Huang et al. 2020, https://arxiv.org/abs/2008.06653).

    Args:
        curves: label to (rate, distortion), each `[T]`, along the temperatures.
        ax: to draw into.
        guides: label to the guide's own (rate, distortion): KL and -E ln p(x|z), which lies above the curve.

    Raises:
        ValueError: for no curves, too many, or rates and distortions of different lengths.
    """
    if not curves or len(curves) > len(LINES):
        raise ValueError(f"expected 1 to {len(LINES)} curves, got {len(curves)}")
    with canvas(ax, 3.4, 2.6) as ax:
        for colour, (label, (rate, distortion)) in zip(LINES, curves.items(), strict=False):
            if rate.shape != distortion.shape:
                raise ValueError(
                    f"expected rates and distortions of one shape, got {tuple(rate.shape)} and "
                    f"{tuple(distortion.shape)}"
                )
            ax.plot(rate.double().cpu().numpy(), distortion.double().cpu().numpy(), color=colour, label=label)
            if guides and label in guides:
                r, d = guides[label]
                ax.plot([r], [d], "s", color=colour, markersize=5, label=f"{label}: guide")
        ax.set_xlabel("rate [nats per datum]")
        ax.set_ylabel("distortion −E ln p(x|z) [nats per datum]")
        ax.legend()
    return ax
