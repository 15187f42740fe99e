"""Paths from one datum to another through the latent space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor

from ...programs import latent_space
from ..images import mean_images, plot_images, starts
from ..style import canvas
from .paths import lerp, slerp


def plot_interpolations(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    image_shape: tuple[int, int],
    pairs: Sequence[tuple[int, int]] = ((0, 1),),
    steps: int = 9,
    site: str | None = None,
    observed: str | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Means of p(x | z) along `lerp` and `slerp` between E_q[z | x] of two data, which stand at the ends.

    Args:
        model, guide, x, *context: the program and its data; the model is given the context of the
            first datum of each pair.
        image_shape: height and width.
        pairs: indices of the two data, for each two rows.
        steps: images between the data.
        site: the latent; default: the first continuous vector.
        observed: name of the observed site, for models with several.
        vmin, vmax: values of black and white; default: the extremes of the images.
        ax: to draw into.

    Raises:
        ValueError: for a latent that is discrete, constrained or one-dimensional; data that are not
            there; steps < 2; as `plot_images`.
    """
    wrong = [p for p in pairs if len(p) != 2 or not all(0 <= i < len(x) for i in p)]
    if wrong or not pairs:
        raise ValueError(f"expected pairs of indices below {len(x)}, got {wrong or list(pairs)}")
    space = latent_space(model, guide, x, *context, site=site, observed=observed)
    codes = space.encode().mean
    rows = []
    for a, b in pairs:
        for path in (lerp, slerp):
            made = space.decode(path(codes[a], codes[b], steps), datum=a).mean
            middle = mean_images(made, x)
            ends = [x[i : i + 1].to(middle) for i in (a, b)]
            rows.append(torch.cat([ends[0], middle, ends[1]]))
    h, w = image_shape
    size = 0.45
    breaks = range(2, len(rows), 2)
    height = size * (len(rows) + len(breaks) / 3) * (h + 1) / (w + 1)
    with canvas(ax, size * (steps + 2.67) + 0.6, height + 0.3) as ax:
        labels = ["linear", "spherical"] * len(pairs)
        columns = (1, steps + 1)
        plot_images(
            rows,
            image_shape,
            ax,
            labels=labels,
            vmin=vmin,
            vmax=vmax,
            row_breaks=breaks,
            column_breaks=columns,
        )
        centres = [left + (w - 1) / 2 for left in starts(steps + 2, w, breaks=columns)]
        ax.xaxis.tick_top()
        ax.set_xticks([centres[0], (centres[1] + centres[steps]) / 2, centres[-1]])
        ax.set_xticklabels(["datum", r"decoded between $\mathrm{E}_q[z|x]$ of both", "datum"])
        ax.tick_params(length=0)
    return ax
