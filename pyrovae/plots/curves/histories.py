"""Training curves of several fits in one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ..checks import column, epochs_of, present
from ..style import GREY, LINES, canvas, epochs_axis, focus
from .training import Rows

DASHES: tuple[Any, ...] = ("-", "--", ":", "-.")
THIN = 1.0
MARKERS = ("", "o", "^", "s", "x", "D")


def plot_histories(
    histories: Mapping[str | tuple[str, ...], Rows],
    ax: Axes | None = None,
    *,
    factors: Sequence[str] = ("prior", "guide", "objective"),
) -> Axes:
    """Validation ELBO of several fits (training ELBO where none was validated), nats per datum.

    Args:
        histories: name to `Fit.history`. A name that is a tuple of two or three, like
            `("VampPrior", "flow", "IWAE")`, is read as levels of a grid: colour, dash and marker
            stand for one factor each, and the legend has a line a level instead of a line a fit.
        ax: to draw into.
        factors: headings of those levels in the legend.

    Raises:
        ValueError: for no histories, empty ones, rows without ELBO, some with validation and some
            without, or more fits (levels) than can be told apart.
    """
    if not isinstance(histories, Mapping) or not histories:
        raise ValueError(f"expected a mapping of names to histories, got {histories!r:.60}")
    keys = {n: tuple(map(str, n)) if isinstance(n, tuple) else (str(n),) for n in histories}
    rows = {keys[name]: (epochs_of(h, f"history {name!r}"), h) for name, h in histories.items()}
    validated = {present(column(h, "valid_elbo")) for _, h in rows.values()}
    if len(validated) > 1:
        raise ValueError(
            "expected validation figures in all histories or in none, got some with and some without"
        )
    key = "valid_elbo" if True in validated else "elbo"
    for name, (_, h) in rows.items():
        if not present(column(h, key)):
            raise ValueError(f"expected a finite 'elbo' in history {name!r}, got the keys {list(h[0])}")
    looks, legend = _looks(list(rows), factors)
    with canvas(ax, 6.0, 3.2) as ax:
        curves = []
        for i, (name, (epochs, h)) in enumerate(rows.items()):
            curves.append(column(h, key))
            # Markers of different fits side by side, not on top of each other.
            every = max(1, len(epochs) // 8)
            ax.plot(
                epochs,
                curves[-1],
                label=" / ".join(name),
                linewidth=THIN,
                markevery=(i % every, every),
                **looks[name],
            )
        focus(ax, curves)
        epochs_axis(ax)
        ax.set_xlabel("epoch")
        ax.set_ylabel(("validation" if key == "valid_elbo" else "training") + " ELBO [nats per datum]")
        if len(rows) > 1:
            drawn = ax.legend(handles=legend, loc="center left", bbox_to_anchor=(1.01, 0.5), borderaxespad=0)
            for handle, text in zip(legend or (), drawn.get_texts(), strict=False):
                if handle.get_linestyle() == "None":
                    text.set_fontweight("bold")
    return ax


def _looks(
    names: list[tuple[str, ...]], factors: Sequence[str]
) -> tuple[dict[tuple[str, ...], dict[str, Any]], list[Line2D] | None]:
    """Line properties by name, and the legend's handles (None: one a line)."""
    depth = len(names[0])
    if any(len(name) != depth for name in names) or depth > 3:
        raise ValueError(f"expected names that are all strings, or all tuples of 2 or 3, got {names}")
    if depth == 1:
        room = len(LINES) * len(DASHES)
        if len(names) > room:
            raise ValueError(f"expected at most {room} histories, got {len(names)}")
        return {
            name: {"color": LINES[i % len(LINES)], "linestyle": DASHES[i // len(LINES)]}
            for i, name in enumerate(names)
        }, None
    if len(factors) < depth:
        raise ValueError(f"expected a heading for each of {depth} factors, got {list(factors)}")
    properties = {"color": LINES, "linestyle": DASHES, "marker": MARKERS}
    looks: dict[tuple[str, ...], dict[str, Any]] = {name: {} for name in names}
    legend: list[Line2D] = []
    for j, (prop, values) in enumerate(list(properties.items())[:depth]):
        levels = list(dict.fromkeys(name[j] for name in names))
        if len(levels) > len(values):
            raise ValueError(f"expected at most {len(values)} levels of {factors[j]}, got {levels}")
        style = dict(zip(levels, values, strict=False))
        for name in names:
            looks[name][prop] = style[name[j]]
        if len(levels) == 1:  # which tells nothing apart
            continue
        legend.append(Line2D([], [], linestyle="none", label=factors[j]))
        base = {"color": GREY, "linestyle": "-"}
        legend += [Line2D([], [], label=level, **(base | {prop: look})) for level, look in style.items()]
    return looks, legend
