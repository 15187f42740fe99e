"""How the bound rises with the number of samples."""

from __future__ import annotations

import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from ...results import EstimateLike, EvidenceLike, is_evidence
from ..checks import estimate_of, quantity
from ..style import BLUE, GREY, LINES, canvas, number


def plot_lk_curve(evs: EvidenceLike | Mapping[str, EvidenceLike], ax: Axes | None = None) -> Axes:
    """The mean of L_K = E ln (1/K) sum_k w_k over data, in nats per datum, against 1/K (log axis).

    The bound rises with K, towards ln p(x) (Burda et al. 2016, https://arxiv.org/abs/1509.00519): to
    the right, where 1/K goes to 0. A curve that is still steep there has not arrived. L_1, the ELBO,
    is a square; the certificate is a dashed line.

    Args:
        evs: one evidence with `"IS"`, or several by label.
        ax: to draw into.

    Raises:
        ValueError: for no evidence, one without IS, one without finite points, or too many of them.
    """
    single = is_evidence(evs)
    given = {"": evs} if is_evidence(evs) else evs
    if not isinstance(given, Mapping) or not given:
        raise ValueError(f"expected an Evidence, or a mapping of labels to them, got {given!r:.60}")
    if len(given) > len(LINES):
        raise ValueError(f"expected at most {len(LINES)} evidences in one picture, got {len(given)}")
    estimates = {label: estimate_of(ev, "IS", "the curve of L_K") for label, ev in given.items()}
    curves = {label: _points(label, e) for label, e in estimates.items()}
    with canvas(ax, 3.4 if single else 5.0, 2.6) as ax:
        handles = []
        for colour, (label, e) in zip(LINES, estimates.items(), strict=False):
            points = curves[label]
            (line,) = ax.plot(
                [1 / k for k in points], list(points.values()), "o-", color=colour, label=label or "_L_K"
            )
            if not single:
                handles.append(line)
            if 1 in points:
                ax.plot([1], [points[1]], "s", color=colour, markersize=5.5, clip_on=False, zorder=3)
            if e.certificate is not None and math.isfinite(e.certificate):
                ax.axhline(e.certificate, color=colour, linestyle="--", linewidth=0.9)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(10, numticks=8))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "1" if x >= 1 else f"1/{1 / x:,.0f}"))
        ax.set_xlim(1.4, 0.7 * min(1 / k for points in curves.values() for k in points))
        ax.set_xlabel("1/K (more samples to the right)")
        first = next(iter(estimates.values()))
        ax.set_ylabel(f"$L_K$ ≤ {quantity(first)} [nats per datum]")
        colour = BLUE if single else GREY
        if any(1 in points for points in curves.values()):
            value = f" = {number(curves[''][1])}" if single else ""
            handles.append(
                Line2D(
                    [],
                    [],
                    color=colour,
                    marker="s",
                    markersize=5,
                    linestyle="none",
                    label=f"ELBO = $L_1${value}",
                )
            )
        if any(e.certificate is not None for e in estimates.values()):
            value = f" ≥ {number(first.certificate)}" if single and first.certificate is not None else ""
            handles.append(
                Line2D(
                    [],
                    [],
                    color=colour,
                    linestyle="--",
                    linewidth=0.9,
                    label=f"certified{value} ({1 - first.delta:.0%})",
                )
            )
        if single:  # it rises to the right
            ax.legend(handles=handles, loc="lower right")
        else:
            ax.legend(handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), borderaxespad=0)
    return ax


def _points(label: str, e: EstimateLike) -> dict[int, float]:
    """Finite points of the curve, the estimate with all K samples included."""
    points = {
        k: v for k, v in sorted((e.curve | {e.num_samples: e.log_evidence}).items()) if math.isfinite(v)
    }
    if not points:
        of = f" of {label!r}" if label else ""
        raise ValueError(f"expected a finite L_K{of}, got {e.curve or e.log_evidence}")
    return points
