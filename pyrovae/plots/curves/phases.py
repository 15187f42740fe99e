"""Training curves of a Boltzmann machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from ..checks import column, epochs_of, present
from ..style import BLUE, GREY, ORANGE, STYLE, epochs_axis, focus, new_figure

FIGURES = {"log_likelihood": "ln p(v) [nats]", "pseudo_log_likelihood": "pseudo-log-likelihood [nats]"}


def plot_phases(
    history: Sequence[Mapping[str, float]],
    *,
    best_epoch: int | None = None,
    figure: Figure | SubFigure | None = None,
) -> Figure | SubFigure:
    """Positive and negative phase (left), likelihood or pseudo-likelihood (right), against the epoch.

    The phases are mean free energies of data and of chains: where they part, the machine prefers one to the
    other. The free energy of validation data is drawn beside them: where it rises above that of training data,
    these are being learned by heart.

    Args:
        history: `Fit.history` under an `objectives.PhaseObjective`.
        best_epoch: the epoch kept, marked.
        figure: to draw into.

    Returns:
        The figure; its Axes are labelled `"phases"` and `"likelihood"`.

    Raises:
        ValueError: for an empty history, rows without phases, or a best epoch not among them.
    """
    epochs = epochs_of(history)
    if not present(column(history, "positive_phase")):
        raise ValueError(
            f"expected a 'positive_phase' in the rows of history, got the keys {list(history[0])}"
        )
    if best_epoch is not None and best_epoch not in epochs:
        raise ValueError(
            f"expected best_epoch among the epochs {epochs[0]:g} ... {epochs[-1]:g}, got {best_epoch}"
        )
    style: dict[str, Any] = {"marker": "o"} if len(epochs) == 1 else {}
    with matplotlib.rc_context(STYLE):
        figure = new_figure(6.8, 2.8) if figure is None else figure
        axes: dict[str, Axes] = figure.subplot_mosaic([["phases", "likelihood"]])
        left, right = axes["phases"], axes["likelihood"]
        left.plot(epochs, column(history, "positive_phase"), color=BLUE, label="positive (data)", **style)
        left.plot(epochs, column(history, "negative_phase"), color=ORANGE, label="negative (chains)", **style)
        valid = column(history, "valid_free_energy")
        if present(valid):
            left.plot(epochs, valid, color=GREY, linestyle="--", label="validation data", **style)
        left.set_ylabel("mean free energy F(v) [nats]")
        left.legend()
        key = next((k for k in FIGURES if present(column(history, k))), None)
        if key is None:
            right.text(
                0.5, 0.5, "not available", transform=right.transAxes, ha="center", va="center", color=GREY
            )
        else:
            curves = {"train": column(history, key), "valid": column(history, f"valid_{key}")}
            for (name, values), colour in zip(curves.items(), (BLUE, ORANGE), strict=True):
                if present(values):
                    right.plot(epochs, values, color=colour, label=name, **style)
            focus(right, list(curves.values()))
            right.set_ylabel(FIGURES[key])
            if len(right.get_legend_handles_labels()[0]) > 1:
                right.legend(loc="lower right")
        for ax in (left, right):
            epochs_axis(ax)
            ax.set_xlabel("epoch")
            if best_epoch is not None:
                ax.axvline(best_epoch, color=GREY, linewidth=0.8, linestyle=":")
    return figure
