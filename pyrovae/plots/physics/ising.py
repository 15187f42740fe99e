"""The Ising torus: what a latent has to do with the magnetisation, and how far models are from the exact law."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter
from torch import Tensor

from ..style import BLACK, GREY, LINES, ORANGE, STYLE, canvas, new_figure, number

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
CRITICAL = 2.269185314213022
# Black is the exact law's own.
COLOURS = [c for c in LINES if c != BLACK]
Curve = tuple[Sequence[float], Sequence[float]]
Points = tuple[Sequence[float], Sequence[float], Sequence[float]]


def plot_latent_magnetisation(z: Tensor, m: Tensor, T: Tensor, ax: Axes | None = None) -> Axes:
    """E_q[z | x] against the magnetisation per spin of x, coloured by temperature.

    Args:
        z: `[N]`.
        m: `[N]`, in [-1, 1].
        T: `[N]`.
        ax: to draw into.

    Raises:
        ValueError: for other shapes.
    """
    if z.dim() != 1 or z.shape != m.shape or z.shape != T.shape:
        raise ValueError(
            f"expected z, m and T [N], got {tuple(z.shape)}, {tuple(m.shape)} and {tuple(T.shape)}"
        )
    with canvas(ax, 3.9, 2.9) as ax:
        # Mixed, so that no temperature lies on top of the others.
        order = torch.randperm(len(z), generator=torch.Generator().manual_seed(0), device="cpu")
        drawn = ax.scatter(
            m[order], z[order], c=T[order], s=4, alpha=0.7, linewidths=0, cmap="viridis", rasterized=True
        )
        bar = ax.figure.colorbar(drawn, ax=ax, label="temperature T [J/k$_B$]")
        if bar.solids is not None:
            bar.solids.set_alpha(1)
        ax.set_xlabel("magnetisation per spin m")
        ax.set_ylabel("posterior mean of z")
    return ax


def plot_order_parameter(latent: Points, exact: Curve, scale: float, ax: Axes | None = None) -> Axes:
    """⟨|z|⟩ at several temperatures, in units of `scale`, against the exact ⟨|m|⟩.

    Args:
        latent: temperatures, ⟨|z|⟩, standard errors.
        exact: temperatures, ⟨|m|⟩.
        scale: by which ⟨|z|⟩ and its errors are divided.
        ax: to draw into.
    """
    t, values, errors = latent
    with canvas(ax, 3.4, 2.6) as ax:
        ax.plot(*exact, color=BLACK, label="⟨|m|⟩, exact")
        ax.errorbar(
            t,
            [v / scale for v in values],
            yerr=[2 * e / scale for e in errors],
            fmt="o",
            color=ORANGE,
            capsize=2,
            label=f"⟨|z|⟩ / {number(scale)}",
        )
        mark_critical(ax)
        ax.set_ylim(bottom=0)
        ax.set_xlabel("temperature T [J/k$_B$]")
        ax.set_ylabel("order parameter per spin")
        ax.legend()
    return ax


def plot_free_energy_per_spin(
    exact: Curve, elbo: Mapping[str, Points], estimate: Mapping[str, Points]
) -> Figure:
    """Free energy per spin against temperature (left), and what the models' are off by (right).

    Args:
        exact: temperatures, −T ln Z / L².
        elbo: of each model: temperatures, error of (⟨E⟩ + T ⟨ELBO⟩)/L² against the exact one, standard errors.
        estimate: the same with ln p by IS (or exact, or AIS) in place of the ELBO.

    Returns:
        The figure; its Axes are labelled `"free_energy"` and `"error"`.
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(6.8, 2.9)
        axes: dict[str, Axes] = figure.subplot_mosaic([["free_energy", "error"]])
        left, right = axes["free_energy"], axes["error"]
        for key, ax in axes.items():
            ax.set_label(key)
        left.plot(*exact, color=BLACK, label="exact: −T ln Z")
        t, f = exact
        for i, (name, (at, off, error)) in enumerate(estimate.items()):
            colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
            here = [_interpolated(t, f, a) for a in at]
            left.plot(at, [h + o for h, o in zip(here, off, strict=True)], marker, color=colour)
            right.errorbar(
                at, off, yerr=[2 * e for e in error], fmt=marker + "-", color=colour, label=name, capsize=2
            )
            if name in elbo:
                at, off, error = elbo[name]
                right.errorbar(
                    at,
                    off,
                    yerr=[2 * e for e in error],
                    fmt=marker + ":",
                    color=colour,
                    mfc="white",
                    capsize=2,
                )
        right.plot([], [], ":", color=GREY, label="by the ELBO")
        right.axhline(0, color=BLACK, linewidth=1.2)
        for ax in (left, right):
            mark_critical(ax)
            ax.set_xlabel("temperature T [J/k$_B$]")
        left.set_ylabel("free energy per spin [J]")
        right.set_ylabel("model − exact = −T KL / L² [J]")
        handles, labels = right.get_legend_handles_labels()
        exact_handles, exact_labels = left.get_legend_handles_labels()
        figure.legend(
            exact_handles + handles, exact_labels + labels, loc="outside lower center", ncols=len(labels) + 1
        )
    return figure


def plot_kl_split(
    models: Mapping[str, tuple[Points, Points]], yardsticks: Mapping[str, Curve], ax: Axes | None = None
) -> Axes:
    """KL(p_data ‖ p_θ) of each model and temperature (filled), and what the ELBO makes of it (hollow), log scale.

    The line between the two is the inference gap ⟨ln p_θ − ELBO⟩. Yardsticks are steps across.

    Args:
        models: name to the KL and the KL by the ELBO, each (temperatures, values, standard errors) in nats.
        yardsticks: name to (temperatures, values).
        ax: to draw into.
    """
    temperatures = sorted({t for kl, _ in models.values() for t in kl[0]})
    place = {t: i for i, t in enumerate(temperatures)}
    width = 0.7 / max(1, len(models))
    with canvas(ax, 5.2, 3.1) as ax:
        for i, (name, curve) in enumerate(yardsticks.items()):
            known = [(place[t], value) for t, value in zip(*curve, strict=True) if t in place]
            ax.hlines(
                [value for _, value in known],
                [at - 0.45 for at, _ in known],
                [at + 0.45 for at, _ in known],
                linestyles=("--", "-.", ":")[i % 3],
                color=GREY,
                label=name,
            )
        for i, (name, (kl, bound)) in enumerate(models.items()):
            colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
            x = [place[t] + (i - (len(models) - 1) / 2) * width for t in kl[0]]
            ax.vlines(x, kl[1], bound[1], color=colour, linewidth=1)
            ax.errorbar(x, bound[1], yerr=[2 * e for e in bound[2]], fmt=marker, color=colour, mfc="white")
            ax.errorbar(x, kl[1], yerr=[2 * e for e in kl[2]], fmt=marker, color=colour, label=name)
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
        ax.grid(False, axis="x")
        ax.set_xticks(range(len(temperatures)), [temperature_name(t) for t in temperatures])
        ax.set_xlabel("temperature T [J/k$_B$]")
        ax.set_ylabel("KL(p$_{data}$ ‖ p$_θ$) [nats]")
        ax.legend(ncols=1, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


def mark_critical(ax: Axes) -> None:
    """A dotted line at the critical temperature of the infinite lattice."""
    ax.axvline(CRITICAL, color=GREY, linestyle=":", linewidth=0.9)
    ax.text(CRITICAL, 0.02, " T$_c$", transform=ax.get_xaxis_transform(), fontsize=7, color=GREY)


def temperature_name(t: float) -> str:
    """`T_c` for the critical one."""
    return "T$_c$" if abs(t - CRITICAL) < 1e-3 else f"{t:g}"


def _interpolated(t: Sequence[float], f: Sequence[float], at: float) -> float:
    pairs = list(zip(t, f, strict=True))
    for (t0, f0), (t1, f1) in pairwise(pairs):
        if t0 <= at <= t1:
            return f0 + (f1 - f0) * (at - t0) / (t1 - t0)
    return pairs[0][1] if at < t[0] else pairs[-1][1]
