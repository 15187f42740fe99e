"""Draws from models of the Ising torus against its exact law: heat capacity, energies, correlations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from ..style import BLACK, STYLE, canvas, new_figure
from .ising import COLOURS, MARKERS, Curve, Points, mark_critical, temperature_name


def plot_heat_capacity(exact: Curve, models: Mapping[str, Points], ax: Axes | None = None) -> Axes:
    """Heat capacity per spin of draws from the models, against the exact one.

    Args:
        exact: temperatures, C / L² in k_B.
        models: name to temperatures, values, standard errors.
        ax: to draw into.
    """
    with canvas(ax, 3.9, 2.8) as ax:
        ax.plot(*exact, color=BLACK, label="exact")
        _points(ax, models)
        mark_critical(ax)
        ax.set_xlabel("temperature T [J/k$_B$]")
        ax.set_ylabel("heat capacity per spin [k$_B$]")
        ax.legend()
    return ax


def plot_energy_histograms(
    levels: Tensor, exact: Mapping[float, Tensor], models: Mapping[str, Mapping[float, Tensor]]
) -> Figure:
    """The law of the energy per spin at each temperature: exact (filled) and of draws from the models.

    Args:
        levels: energies per spin, `[levels]`.
        exact: temperature to its law `[levels]`.
        models: name to temperature to frequencies `[levels]`.
    """
    with matplotlib.rc_context(STYLE):
        figure = _row(list(exact))
        for ax, (t, law) in zip(figure.axes, exact.items(), strict=True):
            top = float(law.max())
            seen = [law, *(m[t] for m in models.values() if t in m)]
            keep = torch.stack([s > 1e-3 * top for s in seen]).any(0) & torch.stack(
                [s > 0 for s in seen]
            ).any(0)
            ax.bar(
                levels[keep], law[keep], width=float(levels[1] - levels[0]), color="#d5d5d5", label="exact"
            )
            for i, (name, laws) in enumerate(models.items()):
                if t in laws:
                    # Levels without states have no frequency, and no line through 0 there.
                    at = keep & ((law > 0) | (laws[t] > 0))
                    ax.plot(levels[at], laws[t][at], color=COLOURS[i % len(COLOURS)], label=name, linewidth=1)
            ax.set_xlabel("energy per spin [J]")
            ax.set_ylim(bottom=0)
        figure.axes[0].set_ylabel("probability")
        _legend_below(figure)
    return figure


def plot_ising_correlations(
    exact: Mapping[float, Tensor], models: Mapping[str, Mapping[float, tuple[Tensor, Tensor]]]
) -> Figure:
    """⟨s_i s_{i+r}⟩ along the axes at each temperature: exact, and of draws from the models.

    Args:
        exact: temperature to G `[L // 2 + 1]`, from r = 0.
        models: name to temperature to G and its standard error.
    """
    with matplotlib.rc_context(STYLE):
        figure = _row(list(exact))
        for ax, (t, G) in zip(figure.axes, exact.items(), strict=True):
            r = torch.arange(len(G), device="cpu")
            ax.plot(r, G, color=BLACK, label="exact")
            for i, (name, found) in enumerate(models.items()):
                if t in found:
                    shift = 0.05 * (i - (len(models) - 1) / 2)  # errors side by side
                    value, error = found[t]
                    ax.errorbar(
                        r[1:] + shift,
                        value[1:],
                        yerr=2 * error[1:],
                        fmt=MARKERS[i % len(MARKERS)],
                        color=COLOURS[i % len(COLOURS)],
                        label=name,
                    )
            ax.set_xticks(r)
            ax.set_ylim(min(0.0, ax.get_ylim()[0]), 1.04)
            ax.set_xlabel("distance r")
        figure.axes[0].set_ylabel("⟨s$_i$ s$_{i+r}$⟩")
        _legend_below(figure)
    return figure


def _row(temperatures: Sequence[float]) -> Figure:
    figure = new_figure(min(8.0, 1.9 * len(temperatures) + 0.5), 2.4)
    for i, t in enumerate(temperatures):
        ax = figure.add_subplot(1, len(temperatures), i + 1)
        ax.set_title(f"T = {temperature_name(t)}")
    return figure


def _legend_below(figure: Figure) -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, int(figure.get_figwidth() / 1.4)))


def _points(ax: Axes, models: Mapping[str, Points]) -> None:
    for i, (name, (t, values, errors)) in enumerate(models.items()):
        ax.errorbar(
            t,
            values,
            yerr=[2 * e for e in errors],
            fmt=MARKERS[i % len(MARKERS)],
            color=COLOURS[i % len(COLOURS)],
            label=name,
            capsize=2,
        )
