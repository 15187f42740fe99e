"""The manifold that a two-dimensional latent spans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor

from ...programs import latent_space
from ..images import GAP, mean_images, plot_images, starts
from ..style import canvas, number
from .paths import gaussian_quantiles

SMALL = 20  # images of fewer pixels have no margins of their own


def plot_manifold(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    image_shape: tuple[int, int],
    steps: int = 20,
    site: str | None = None,
    observed: str | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Means of p(x | z) on a grid of z at Gaussian quantiles, z_j = Φ⁻¹(u), as one picture.

    Under p(z) = N(0, I) all images stand for regions of equal probability. Under another prior the
    quantiles are those of the Gaussian with its mean and standard deviation, and the axes say so
    (Kingma & Welling 2014, https://arxiv.org/abs/1312.6114).

    Args:
        model, guide, x, *context: the program and data it runs on; the model is given the context of
            the first datum.
        image_shape: height and width.
        steps: images in a row and in a column.
        site: the latent; default: the first continuous vector.
        observed: name of the observed site, for models with several.
        vmin, vmax: values of black and white; default: the extremes of the images.
        ax: to draw into.

    Raises:
        ValueError: for a latent that is not 2-D, discrete or constrained; steps < 2; as `plot_images`.
    """
    space = latent_space(model, guide, x, *context, site=site, observed=observed)
    if space.dim != 2:
        raise ValueError(f"expected a 2-D latent for a manifold, got {space.dim}; try plot_traversals")
    if steps < 2:
        raise ValueError(f"expected steps >= 2, got {steps}")
    mean, sd = space.prior_moments()
    u = gaussian_quantiles(steps).to(mean)
    # Reading order: z_2 falls down the page, z_1 grows along it.
    second, first = torch.meshgrid(u.flip(0), u, indexing="ij")
    z = mean + sd * torch.stack([first, second], -1).reshape(-1, 2)
    images = mean_images(space.decode(z).mean, x)
    standard = bool((mean == 0).all() and (sd == 1).all())
    h, w = image_shape
    gap = GAP if min(h, w) < SMALL else 0
    with canvas(ax, 4.4, 0.3 + 4.0 * h / w) as ax:
        plot_images(list(images.split(steps)), image_shape, ax, vmin=vmin, vmax=vmax, gap=gap)
        if not gap:  # at about one dot a pixel, nearest neighbours would drop some and double others
            ax.images[0].set_interpolation("antialiased")
        quarter = (steps - 1) // 4
        ticks = sorted({0, quarter, steps - 1 - quarter, steps - 1} | ({steps // 2} if steps % 2 else set()))
        lefts, tops = starts(steps, w, gap), starts(steps, h, gap)[::-1]
        ax.set_xticks([lefts[i] + (w - 1) / 2 for i in ticks])
        ax.set_xticklabels([number(float(mean[0] + sd[0] * u[i]), 1) for i in ticks])
        ax.set_yticks([tops[i] + (h - 1) / 2 for i in ticks])
        ax.set_yticklabels([number(float(mean[1] + sd[1] * u[i]), 1) for i in ticks])
        for j in (1, 2):
            quantile = rf"\Phi^{{-1}}(u_{j})"
            label = (
                f"$z_{j} = {quantile}$"
                if standard
                else rf"$z_{j} = \mu_{j} + \sigma_{j}\,{quantile}$, $\mu$ and $\sigma$ of the prior"
            )
            if j == 1:
                ax.set_xlabel(label)
            else:
                ax.set_ylabel(label)
    return ax
