"""Histories to draw, and what of a figure is looked at."""

import numpy as np


def rows(epochs=30, beta=lambda e: 1.0, valid=True, offset=0.0):
    out = []
    for e in range(1, epochs + 1):
        terms = {"elbo": offset - 90 - 300 / e**2, "reconstruction": -80 - 300 / e**2, "kl": 10.0 + 1 / e}
        out.append({"epoch": e, "beta": beta(e), **terms})
        if valid:
            out[-1] |= {f"valid_{k}": v - 2 for k, v in terms.items()}
    return out


def by_label(figure):
    figure.draw_without_rendering()
    return {ax.get_label(): ax for ax in figure.axes}


def line(ax, label):
    (found,) = [artist for artist in ax.lines if artist.get_label() == label]
    return np.asarray(found.get_xydata())


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def scatter(ax, start):
    (found,) = [c for c in ax.collections if str(c.get_label()).startswith(start)]
    return np.asarray(found.get_offsets())


GRID = {
    (p, g, o): rows(offset=i + 3 * j + 9 * k)
    for i, p in enumerate(("StandardNormal", "VampPrior", "mixture_of $"))
    for j, g in enumerate(("diagonal", "full", "flow"))
    for k, o in enumerate(("ELBO", "IWAE"))
}
