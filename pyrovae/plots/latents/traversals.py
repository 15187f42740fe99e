"""Effect of each latent dimension, the most informative first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor

from ...programs import latent_space
from ..images import mean_images, plot_images, starts
from ..style import canvas, number


def plot_traversals(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    image_shape: tuple[int, int],
    datum: int = 0,
    num_dims: int = 12,
    steps: int = 11,
    width: float = 3.0,
    site: str | None = None,
    observed: str | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Means of p(x | z) as one dimension of z moves over ± `width` standard deviations of the prior.

    The others stay at E_q[z | x] of one datum. Rows are ordered by KL(q(z_j|x) ‖ p(z_j)), mean over
    the data in nats, where guide and prior factorise over dimensions; else by Var_x E_q[z_j | x],
    the variance of the posterior mean. The title says which (Higgins et al. 2017,
    https://openreview.net/forum?id=Sy2fzU9gl).

    Args:
        model, guide, x, *context: the program, and the data that KL or variance are of.
        image_shape: height and width.
        datum: whose code the traversals pass near, and whose context the model is given.
        num_dims: rows at most.
        steps: images in a row.
        width: in standard deviations of the prior.
        site: the latent; default: the first continuous vector.
        observed: name of the observed site, for models with several.
        vmin, vmax: values of black and white; default: the extremes of the images.
        ax: to draw into.

    Raises:
        ValueError: for a latent that is discrete or constrained; a datum that is not there;
            num_dims < 1, steps < 2, or width <= 0; as `plot_images`.
    """
    if num_dims < 1 or steps < 2 or not width > 0:
        raise ValueError(
            f"expected num_dims >= 1, steps >= 2 and width > 0, got {num_dims}, {steps} and {width}"
        )
    if not 0 <= datum < len(x):
        raise ValueError(f"expected datum in 0 ... {len(x) - 1}, got {datum}")
    space = latent_space(model, guide, x, *context, site=site, observed=observed)
    codes = space.encode()
    importance = codes.kl if codes.kl is not None else codes.mean.double().var(0, unbiased=False)
    order = importance.argsort(descending=True, stable=True)[:num_dims].tolist()
    mean, sd = space.prior_moments()
    half = torch.linspace(-width, width, steps, device="cpu")
    offsets = ((half - half.flip(0)) / 2).to(mean)  # symmetric: the middle is 0, not nearly
    z = codes.mean[datum].repeat(len(order), steps, 1)
    for row, j in enumerate(order):
        z[row, :, j] = mean[j] + sd[j] * offsets
    images = mean_images(space.decode(z.flatten(0, 1), datum=datum).mean, x)
    by_kl = codes.kl is not None
    labels = [f"$z_{{{j + 1}}}$   {float(importance[j]):.2f}{' nats' if by_kl else ''}" for j in order]
    h, w = image_shape
    size = min(0.5, 5.0 / len(order))
    with canvas(ax, size * steps + 0.9, size * len(order) * (h + 1) / (w + 1) + 0.6) as ax:
        plot_images(list(images.split(steps)), image_shape, ax, labels=labels, vmin=vmin, vmax=vmax)
        shown = sorted({0, (steps - 1) // 2, steps - 1} if steps % 2 else {0, steps - 1})
        ax.set_xticks([starts(steps, w)[i] + (w - 1) / 2 for i in shown])
        ax.set_xticklabels([number(float(offsets[i]), 1) for i in shown])
        standard = bool((mean == 0).all() and (sd == 1).all())
        ax.set_xlabel("$z_j$" if standard else "$z_j$, in standard deviations of the prior from its mean")
        more = f", {len(order)} of {space.dim} dims" if len(order) < space.dim else ""
        what = (
            r"KL$(q(z_j|x)\,\|\,p(z_j))$"
            if by_kl
            else r"$\mathrm{Var}_x\,\mathrm{E}_q[z_j|x]$ (no KL per dim)"
        )
        of = f"mean over {len(x):,} data" if by_kl else f"{len(x):,} data"
        ax.set_title(f"{what}, {of}{more}")
    return ax
