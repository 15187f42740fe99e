"""Training curves of one fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from ..checks import column, epochs_of, present
from ..style import BLUE, GREY, ORANGE, STYLE, epochs_axis, focus, new_figure

Rows = Sequence[Mapping[str, float]]
NOTHING = 1e-3  # nats: rounding of a KL that is 0


def plot_training(
    history: Rows, *, best_epoch: int | None = None, figure: Figure | SubFigure | None = None
) -> Figure | SubFigure:
    """ELBO (left), its terms E_q[ln p(x|z)] and KL (right), in nats per datum, against the epoch.

    Of a program whose latents cancel, as a diffusion's bound in continuous time, the terms are those of the
    history (`term_x`, `term_prior_matching`, `term_diffusion`), which add up to the ELBO. Where beta varies it is
    drawn over the KL on an axis of its own. The first tenth of training may lie below the axes, so that the rest
    can be read.

    Args:
        history: `Fit.history`.
        best_epoch: `Fit.best_epoch`, marked.
        figure: to draw into.

    Returns:
        The figure; its Axes are labelled `"elbo"`, `"reconstruction"`, `"kl"` (or by the terms) and, perhaps, `"beta"`.

    Raises:
        ValueError: for an empty history, rows without epoch or ELBO, or a best epoch not among them.
    """
    epochs = epochs_of(history)
    if not present(column(history, "elbo")):
        raise ValueError(f"expected a finite 'elbo' in the rows of history, got the keys {list(history[0])}")
    if best_epoch is not None and best_epoch not in epochs:
        raise ValueError(
            f"expected best_epoch among the epochs {epochs[0]:g} ... {epochs[-1]:g}, got {best_epoch}"
        )
    with matplotlib.rc_context(STYLE):
        terms = _terms(history)
        figure = new_figure(6.8, max(2.8, 1.2 * len(terms))) if figure is None else figure
        axes: dict[str, Axes] = figure.subplot_mosaic([["elbo", key] for key in terms], sharex=True)
        for key, label in {"elbo": "ELBO [nats per datum]", **terms}.items():
            _draw(axes[key], history, epochs, key, label, best_epoch)
        right = [axes[key] for key in terms]
        if len(axes["elbo"].get_legend_handles_labels()[0]) > 1:
            axes["elbo"].legend(loc="lower right")
        else:
            axes["elbo"].set_ylabel("training ELBO [nats per datum]")
        for ax in axes.values():
            epochs_axis(ax)
        axes["elbo"].set_xlabel("epoch")
        right[-1].set_xlabel("epoch")
        for ax in right[:-1]:
            ax.tick_params(labelbottom=False)
        beta = column(history, "beta")
        if "kl" in axes and present(beta) and max(beta) > min(beta):
            _beta(axes["kl"], epochs, beta)
        figure.align_ylabels(right)
    return figure


def _terms(history: Rows) -> dict[str, str]:
    """Columns that add up to the ELBO, and their labels."""
    names = [key for key in history[0] if key.startswith("term_")]
    kl = [abs(v) for v in column(history, "kl")]
    if not names or not max(kl) < NOTHING:
        return {"reconstruction": "E$_q$ ln p(x|z) [nats]", "kl": "KL [nats]"}
    titles = {"term_x": "reconstruction"}
    return {n: titles.get(n, n.removeprefix("term_").replace("_", " ")) + "\n[nats]" for n in names}


def _draw(ax: Axes, history: Rows, epochs: list[float], key: str, label: str, best_epoch: int | None) -> None:
    ax.set_ylabel(label)
    train, valid = column(history, key), column(history, f"valid_{key}")
    # A single epoch is a point; a line through it would not be seen.
    style: dict[str, Any] = {"marker": "o"} if len(epochs) == 1 else {}
    if not present(train):
        ax.text(0.5, 0.5, "not available", transform=ax.transAxes, ha="center", va="center", color=GREY)
    ax.plot(epochs, train, color=BLUE, label="train", **style)
    if present(valid):
        ax.plot(epochs, valid, color=ORANGE, label="valid", **style)
    if key != "kl":
        focus(ax, [train, valid])
    if best_epoch is not None:
        best = (valid if present(valid) else train)[epochs.index(best_epoch)]
        if math.isfinite(best):
            ax.plot(
                [best_epoch],
                [best],
                "o",
                color=ORANGE if present(valid) else BLUE,
                markerfacecolor="white",
                markersize=5,
                zorder=3,
                clip_on=False,
                label=f"kept (epoch {best_epoch})",
            )


def _beta(ax: Axes, epochs: list[float], beta: list[float]) -> None:
    twin = ax.twinx()
    twin.set_label("beta")
    twin.plot(epochs, beta, color=GREY, linestyle="--", linewidth=0.9)
    twin.set_ylabel("β (dashed)", color=GREY)
    twin.tick_params(axis="y", colors=GREY)
    twin.set_ylim(0, 1.05 * max(beta))
    twin.grid(False)
    twin.spines["right"].set_visible(True)
