"""Images in rows."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from torch import Tensor

from ..results import EvidenceLike
from .checks import single, weighted_by
from .style import canvas, number

GAP = 1  # pixels between images


def plot_images(
    rows: Sequence[Tensor],
    image_shape: tuple[int, int],
    ax: Axes | None = None,
    *,
    labels: Sequence[str] | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    gap: int = GAP,
    row_breaks: Collection[int] = (),
    column_breaks: Collection[int] = (),
) -> Axes:
    """Rows of images on one grey (or RGB) scale.

    Args:
        rows: each `[n, *event]`, where the event is an image of height x width in any shape,
            `(3, height, width)` or `(height, width, 3)`; rows may differ in n. NaN is left blank.
        image_shape: height and width, as `DataSpec.image_shape`.
        ax: to draw into.
        labels: one a row.
        vmin, vmax: values of black and white; default: the extremes over all rows.
        gap: pixels between images.
        row_breaks, column_breaks: rows and columns before which there is a third of an image's space.

    Raises:
        ValueError: for no images, events that do not fill the image shape, or labels that do not
            match the rows.
    """
    if len(image_shape) != 2 or min(image_shape) < 1:
        raise ValueError(f"expected image_shape (height, width), got {tuple(image_shape)}")
    images = [_images(row, image_shape) for row in rows]
    if not images or not all(len(row) for row in images):
        raise ValueError(f"expected rows with at least one image each, got {[len(row) for row in images]}")
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"expected a label for each of {len(images)} rows, got {len(labels)}")
    if len({row.ndim for row in images}) > 1:
        raise ValueError("expected all rows grey or all rows in colour, got both")
    finite = torch.cat([row[torch.isfinite(row)] for row in images])
    if not len(finite) and None in (vmin, vmax):
        raise ValueError("expected images with finite values, got none; try vmin and vmax")
    low = float(finite.min()) if vmin is None else vmin
    high = float(finite.max()) if vmax is None else vmax
    if high <= low:
        high = low + 1.0
    h, w = image_shape
    ncols = max(len(row) for row in images)
    tops = starts(len(images), h, gap, row_breaks)
    lefts = starts(ncols, w, gap, column_breaks)
    canvas_shape = (tops[-1] + h, lefts[-1] + w)
    # One bitmap for all: Axes by the dozen are slow to lay out, and each sets its own grid.
    colour = images[0].ndim == 4
    sheet = torch.full(
        (*canvas_shape, 3) if colour else canvas_shape, 1.0 if colour else torch.nan, device="cpu"
    )
    for i, row in enumerate(images):
        for j, image in enumerate(row):
            top, left = tops[i], lefts[j]
            sheet[top : top + h, left : left + w] = (
                ((image - low) / (high - low)).clamp(0, 1).nan_to_num(nan=1.0) if colour else image
            )
    # Inches of the sheet, of its labels and of the layout's own padding: no blank margins.
    width = min(6.0, 0.55 * ncols)
    height = width * canvas_shape[0] / canvas_shape[1]
    beside = 0.06 + 0.055 * max(map(len, labels)) if labels else 0.0
    with canvas(ax, width + beside + 0.09, height + 0.09) as ax:
        grey = colormaps["gray"].with_extremes(bad="white")
        ax.imshow(sheet.numpy(), cmap=grey, vmin=low, vmax=high, interpolation="nearest")
        ax.set_xticks([])
        ax.set_yticks([top + (h - 1) / 2 for top in tops] if labels else [])
        if labels:
            ax.set_yticklabels(labels)
        ax.tick_params(length=0)
        ax.grid(False)
        for spine in ax.spines.values():
            spine.set_visible(False)
    return ax


def plot_reconstructions(
    x: Tensor,
    mean: Tensor,
    image_shape: tuple[int, int],
    ncols: int = 10,
    ax: Axes | None = None,
    *,
    ev: EvidenceLike | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
) -> Axes:
    """Data above, the means of p(x|z) that the program makes of them below.

    Args:
        x, mean: `[N, *event]`, in the same units.
        image_shape: height and width.
        ncols: how many, from the first.
        ax: to draw into.
        ev: evidence of the same data, from the first: its estimates of ln p(x), of IS where it has it, are
            written above them, in nats.
        vmin, vmax: values of black and white; default: the extremes of x.

    Raises:
        ValueError: as `plot_images`; different shapes, ncols < 1; an evidence of too few data.
    """
    if x.shape != mean.shape:
        raise ValueError(f"expected x and mean of one shape, got {tuple(x.shape)} and {tuple(mean.shape)}")
    if ncols < 1:
        raise ValueError(f"expected ncols >= 1, got {ncols}")
    # The scale is that of the data, so that a faint reconstruction looks faint.
    low = float(x.min()) if vmin is None and x.numel() else vmin
    high = float(x.max()) if vmax is None and x.numel() else vmax
    rows = [x[:ncols], mean[:ncols]]
    labels = ["data", "reconstruction"]
    if ev is None:
        return plot_images(rows, image_shape, ax, labels=labels, vmin=low, vmax=high)
    estimate = single(ev)
    if len(estimate.per_datum) < len(rows[0]):
        raise ValueError(f"expected an evidence of {len(rows[0])} data, got {len(estimate.per_datum)}")
    h, w = image_shape
    size = min(0.55, 6.0 / len(rows[0]))
    with canvas(ax, size * len(rows[0]) + 0.95, 2 * size * (h + 1) / (w + 1) + 0.45) as ax:
        plot_images(rows, image_shape, ax, labels=labels, vmin=low, vmax=high)
        annotate(ax, estimate.per_datum[: len(rows[0])].tolist(), image_shape)
        ax.set_title(weighted_by(estimate))
    return ax


def plot_samples(
    x: Tensor,
    image_shape: tuple[int, int],
    ncols: int | None = None,
    ax: Axes | None = None,
    *,
    vmin: float | None = None,
    vmax: float | None = None,
) -> Axes:
    """Images in reading order.

    Args:
        x: `[n, *event]`.
        image_shape: height and width.
        ncols: images a row; default: about twice as many as rows.
        ax: to draw into.
        vmin, vmax: values of black and white; default: the extremes of x.

    Raises:
        ValueError: as `plot_images`; ncols < 1.
    """
    if ncols is not None and ncols < 1:
        raise ValueError(f"expected ncols >= 1, got {ncols}")
    ncols = ncols or max(1, math.ceil(math.sqrt(2 * len(x))))
    return plot_images(list(x.split(ncols)) if len(x) else [], image_shape, ax, vmin=vmin, vmax=vmax)


def starts(num: int, size: int, gap: int = GAP, breaks: Collection[int] = ()) -> list[int]:
    """First pixel of each of `num` images along one direction."""
    extra = round(size / 3)
    return [i * (size + gap) + extra * sum(0 < b <= i for b in breaks) for i in range(num)]


def annotate(ax: Axes, values: Sequence[float], image_shape: tuple[int, int], digits: int = 1) -> None:
    """Writes a figure above each image of the first row."""
    _, w = image_shape
    ax.xaxis.tick_top()
    ax.set_xticks([left + (w - 1) / 2 for left in starts(len(values), w)])
    ax.set_xticklabels([number(v, digits if abs(v) < 1000 else 0) for v in values])
    ax.tick_params(length=0, pad=1)


def mean_images(mean: Tensor, x: Tensor) -> Tensor:
    """Means in the event shape of the data, which a model may flatten."""
    return mean.reshape(len(mean), *x.shape[1:]) if mean[0].numel() == x[0].numel() else mean


def _images(row: Tensor, image_shape: tuple[int, int]) -> Tensor:
    """`[n, h, w]`, or `[n, h, w, 3]` for colour."""
    h, w = image_shape
    row = row.detach().float().cpu()
    if tuple(row.shape[1:]) == (3, h, w):
        return row.permute(0, 2, 3, 1)
    if tuple(row.shape[1:]) == (h, w, 3):
        return row
    if row.ndim < 2 or math.prod(row.shape[1:]) != h * w:
        raise ValueError(
            f"expected images [n, *event] of {h} x {w} = {h * w} pixels, got shape {tuple(row.shape)}"
        )
    return row.reshape(-1, h, w)
