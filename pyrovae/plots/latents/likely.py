"""Data that the program finds strange, and data that it expects."""

from __future__ import annotations

import matplotlib
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ...results import EvidenceLike
from ..checks import single, weighted_by
from ..images import annotate, plot_images
from ..style import STYLE, new_figure


def plot_likely(
    ev: EvidenceLike,
    image_shape: tuple[int, int],
    num: int = 24,
    ncols: int = 12,
    *,
    images: Tensor | None = None,
    name: str = "data",
    vmin: float | None = None,
    vmax: float | None = None,
) -> Figure:
    """The data of least and of greatest evidence, each with its estimate of ln p(x), in nats.

    Args:
        ev: whose IS is shown, or another estimator where it has none.
        image_shape: height and width.
        num: of each.
        ncols: images in a row.
        images: `[N, *event]` to show instead of `ev.x`.
        name: of the data.
        vmin, vmax: values of black and white; default: the extremes of the images.

    Raises:
        ValueError: no evidence; num or ncols < 1; images of another number; as `plot_images`.
    """
    estimate = single(ev)
    if num < 1 or ncols < 1:
        raise ValueError(f"expected num >= 1 and ncols >= 1, got {num} and {ncols}")
    shown = ev.x if images is None else images
    if len(shown) != len(ev.x):
        raise ValueError(f"expected {len(ev.x)} images, one a datum, got {len(shown)}")
    values = estimate.per_datum.cpu()
    order = values.argsort(stable=True)
    num = min(num, len(order))
    low, high = (float(shown.min()) if vmin is None else vmin), (float(shown.max()) if vmax is None else vmax)
    h, w = image_shape
    ncols = min(ncols, num)
    size = min(0.55, 6.2 / ncols)
    lines = -(-num // ncols)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(size * ncols + 0.1, 2 * (lines * (size * h / w + 0.17) + 0.28) + 0.2)
        figure.suptitle(f"{weighted_by(estimate)}, {len(values):,} {name}", fontsize=8)
        grid = figure.add_gridspec(2 * lines, 1)
        for block, (title, chosen) in enumerate(
            (("least likely", order[:num]), ("most likely", order.flip(0)[:num]))
        ):
            for line, part in enumerate(chosen.split(ncols)):
                ax = figure.add_subplot(grid[block * lines + line, 0])
                row = shown[part.to(shown.device)]
                blank = row.new_full((ncols - len(row), *row.shape[1:]), torch.nan, dtype=torch.float32)
                plot_images([torch.cat([row.float(), blank])], image_shape, ax, vmin=low, vmax=high)
                annotate(ax, values[part].tolist(), image_shape)
                if line == 0:
                    ax.set_title(title, loc="left")
    return figure
