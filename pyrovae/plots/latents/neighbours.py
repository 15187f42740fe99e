"""Does the program repeat its training data? Samples beside those nearest to them."""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from torch import Tensor

from ..images import annotate, plot_images
from ..style import canvas

CHUNK = 8192  # data compared at once


def nearest_neighbours(queries: Tensor, data: Tensor, k: int = 5) -> tuple[Tensor, Tensor]:
    """The k nearest data of each query, Euclidean; memory is that of a few thousand distances a query.

    Args:
        queries: `[M, *event]`.
        data: `[N, *event]`.
        k: neighbours of each.

    Returns:
        distances `[M, k]`, ascending, and indices `[M, k]`; of equal distances the lower index.

    Raises:
        ValueError: for events of different size, no data, or k outside 1 ... N.
    """
    if not len(queries) or not len(data) or queries[0].numel() != data[0].numel():
        raise ValueError(
            f"expected queries and data of one event, got {tuple(queries.shape)} and {tuple(data.shape)}"
        )
    if not 1 <= k <= len(data):
        raise ValueError(f"expected k in 1 ... {len(data)}, got {k}")
    flat = queries.detach().flatten(1)
    kind = torch.promote_types(flat.dtype, torch.float32)
    flat = flat.to(kind)
    best = flat.new_empty(len(flat), 0)
    where = torch.empty(len(flat), 0, dtype=torch.long, device=flat.device)
    for start in range(0, len(data), CHUNK):
        part = data[start : start + CHUNK].detach().flatten(1).to(flat)
        # Differences, not |a|² + |b|² − 2ab: that one cancels for near duplicates, the very find.
        far = torch.cdist(flat, part, compute_mode="donot_use_mm_for_euclid_dist")
        index = torch.arange(start, start + len(part), device=flat.device).expand(len(flat), -1)
        best, where = torch.cat([best, far], 1), torch.cat([where, index], 1)
        order = best.argsort(dim=1, stable=True)[:, :k]
        best, where = best.gather(1, order), where.gather(1, order)
    return best, where


def plot_neighbours(
    samples: Tensor,
    data: Tensor,
    image_shape: tuple[int, int],
    k: int = 5,
    ax: Axes | None = None,
    *,
    name: str = "training data",
    vmin: float | None = None,
    vmax: float | None = None,
) -> Axes:
    """Each sample above its k nearest data, with the distance to the nearest.

    A program that has memorised its data has samples at distance zero.

    Args:
        samples: `[M, *event]`, e.g. means of p(x | z); one column each.
        data: `[N, *event]`, in the same units.
        image_shape: height and width.
        k: neighbours of each.
        ax: to draw into.
        name: of the data.
        vmin, vmax: values of black and white; default: the extremes of the images shown.

    Raises:
        ValueError: as `nearest_neighbours` and `plot_images`.
    """
    distances, indices = nearest_neighbours(samples, data, k)
    samples = samples.reshape(len(samples), *data.shape[1:])
    rows = [samples, *(data[column] for column in indices.T)]
    labels = ["sample", *(f"neighbour {i + 1}" for i in range(k))]
    h, w = image_shape
    size = min(0.5, 6.0 / len(samples))
    with canvas(ax, size * len(samples) + 0.8, size * (len(rows) + 0.33) * (h + 1) / (w + 1) + 0.45) as ax:
        plot_images(rows, image_shape, ax, labels=labels, vmin=vmin, vmax=vmax, row_breaks=(1,))
        nearest = distances[:, 0].tolist()
        annotate(ax, nearest, image_shape, digits=2 if max(nearest) < 100 else 1)
        ax.set_title(f"Euclidean distance to the nearest of {len(data):,} {name}")
    return ax
