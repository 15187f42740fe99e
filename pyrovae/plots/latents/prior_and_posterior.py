"""Draws from the prior beside draws from the aggregate posterior."""

from __future__ import annotations

import math

import matplotlib
from matplotlib.figure import Figure
from torch import Tensor

from ..images import plot_samples
from ..style import STYLE, new_figure


def plot_prior_and_posterior(
    prior: Tensor,
    posterior: Tensor,
    image_shape: tuple[int, int],
    ncols: int | None = None,
    *,
    vmin: float | None = None,
    vmax: float | None = None,
) -> Figure:
    """Means of p(x | z), z ~ p(z) on the left and z ~ q(z | x_n), x_n from the training data, on the right.

    Where the right looks better than the left, the prior has mass where no datum has its code
    (Hoffman & Johnson 2016, http://approximateinference.org/accepted/HoffmanJohnson2016.pdf).

    Args:
        prior, posterior: `[n, *event]`, as of `simulate` and `aggregate_posterior`.
        image_shape: height and width.
        ncols: images in a row; default: a square.
        vmin, vmax: values of black and white; default: the extremes of both.

    Raises:
        ValueError: as `plot_samples`.
    """
    both = (prior, posterior)
    if min(map(len, both)) < 1:
        raise ValueError(f"expected draws from both, got {len(prior)} and {len(posterior)}")
    ncols = ncols if ncols is not None else math.ceil(math.sqrt(len(prior)))
    low = min(float(v.min()) for v in both) if vmin is None else vmin
    high = max(float(v.max()) for v in both) if vmax is None else vmax
    h, w = image_shape
    lines = math.ceil(max(map(len, both)) / max(1, ncols))
    width = min(3.1, 0.45 * ncols)
    titles = (r"prior: $z \sim p(z)$", r"aggregate posterior: $z \sim q(z\,|\,x_n)$")
    with matplotlib.rc_context(STYLE):
        figure = new_figure(2 * max(width, 1.6) + 0.2, width * lines * (h + 1) / (ncols * (w + 1)) + 0.3)
        for i, (images, title) in enumerate(zip(both, titles, strict=True)):
            ax = plot_samples(
                images, image_shape, ncols, figure.add_subplot(1, 2, i + 1), vmin=low, vmax=high
            )
            ax.set_title(title)
    return figure
