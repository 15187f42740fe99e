"""Places of the data in the latent space."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from torch import Tensor

from ...programs import latent_space
from ...programs.generate.latent_space import Codes
from ..style import BLUE, CLASSES, SIGNS, canvas, plain

MAX_CLASSES = 20
RASTER = 2000
CROWD = 2000  # more points than this are drawn smaller
ROOM = 0.06  # of the points' extent, that a name takes
HALO = withStroke(linewidth=3, foreground="white")


def plot_latent(
    z: Tensor,
    labels: Tensor | Sequence[Any] | None = None,
    ax: Axes | None = None,
    *,
    kl: Tensor | None = None,
    symbol: str = "z_{}",
) -> Axes:
    """Latent codes in the plane, coloured by class.

    For more than two latent dims, the two of largest KL where `kl` is given, else the first two
    principal components of the codes; the axis labels say which.

    Args:
        z: `[N, D]`, D >= 2; e.g. posterior means.
        labels: classes of the N data, at most 20 of them.
        ax: to draw into.
        kl: KL of each dim, `[D]`, in nats.
        symbol: of a dim, with a place for its number; TeX.

    Raises:
        ValueError: for another shape, values that are not finite, labels of another length, or too
            many classes.
    """
    check_plane(z)
    if kl is not None and (kl.shape != z.shape[1:] or not torch.isfinite(kl).all()):
        raise ValueError(
            f"expected a finite kl [{z.shape[1]}], one for each dim, got shape {tuple(kl.shape)}"
        )
    points, names = project(z.detach().double().cpu(), kl, symbol)
    groups = groups_of(labels, len(z))
    with canvas(ax, 3.9 if groups else 3.4, 3.2) as ax:
        style: dict[str, Any] = {
            "s": 7 if len(z) <= CROWD else 2.5,
            "alpha": 0.75,
            "linewidths": 0,
            "rasterized": len(z) > RASTER,
        }
        for i, (name, (mask, colour)) in enumerate(groups.items()):
            sign = SIGNS[i % len(SIGNS)]
            ax.scatter(
                points[mask, 0], points[mask, 1], color=colour, label=plain(name), marker=sign, **style
            )
        # Ten colours are hard to tell apart; a name in the middle of its class is not.
        middles = [np.median(points[mask], axis=0) for mask, _ in groups.values()]
        for name, at in zip(groups, _apart(middles, points), strict=True):
            ax.annotate(
                plain(name),
                at,
                ha="center",
                va="center",
                weight="bold",
                fontsize=9,
                path_effects=[HALO],
                zorder=4,
            )
        if groups:
            ax.legend(
                loc="center left",
                bbox_to_anchor=(1.0, 0.5),
                markerscale=1.8,
                handletextpad=0.2,
                ncols=1 + (len(groups) > 10),
            )
        else:
            ax.scatter(points[:, 0], points[:, 1], color=BLUE, **style)
        ax.set_xlabel(names[0])
        ax.set_ylabel(names[1])
        # Distances mean something here, so they are alike in both directions.
        ax.set_aspect("equal", adjustable="datalim")
    return ax


def plot_latent_space(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    labels: Tensor | Sequence[Any] | None = None,
    site: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """`plot_latent` of E_q[z | x], on the dims of largest KL(q(z_j|x) ‖ p(z_j)) (mean over the data).

    Where guide or prior does not factorise over dims, on principal components.

    Args:
        model, guide, x, *context: the program and its data.
        labels: classes of the data.
        site: the latent; default: the first continuous vector.
        ax: to draw into.

    Raises:
        ValueError: for a latent that is discrete, constrained or one-dimensional; as `plot_latent`.
    """
    codes = codes_of(model, guide, x, *context, site=site)
    return plot_latent(codes.mean, labels, ax, kl=codes.kl, symbol=r"\mathrm{{E}}_q[z_{}\,|\,x]")


def codes_of(
    model: Callable[..., Any], guide: Callable[..., Any], x: Tensor, *context: Any, site: str | None
) -> Codes:
    """Codes of a latent that has a plane.

    Raises:
        ValueError: for one that is discrete, constrained or one-dimensional.
    """
    space = latent_space(model, guide, x, *context, site=site)
    if space.dim < 2:
        raise ValueError(f"expected a latent of at least 2 dims for the plane, got {space.dim}")
    return space.encode()


def check_plane(z: Tensor) -> None:
    """Raises ValueError for codes that have no place in the plane: of fewer than two dims, or not finite."""
    if z.ndim != 2 or z.shape[0] < 1 or z.shape[1] < 2:
        raise ValueError(f"expected z [N, D] with N >= 1 and D >= 2, got shape {tuple(z.shape)}")
    if not torch.isfinite(z).all():
        raise ValueError(f"expected finite z, got {int((~torch.isfinite(z)).sum())} values that are not")


def _apart(middles: list[np.ndarray], points: np.ndarray) -> list[tuple[float, float]]:
    """The same places, moved from each other where names there would cover each other."""
    at = np.array(middles).reshape(-1, 2)
    least = ROOM * float(np.ptp(points, axis=0).max() or 1.0)
    for _ in range(100):
        between = at[:, None] - at[None]
        distance = np.hypot(between[..., 0], between[..., 1])
        near = (distance < least) & ~np.eye(len(at), dtype=bool)
        if not near.any():
            break
        # Of places that coincide each has a direction of its own.
        turn = np.arange(len(at))[:, None] - np.arange(len(at))[None]
        way = np.where(
            distance[..., None] > 1e-9 * least,
            between,
            np.stack([np.cos(turn), np.sin(turn)], -1) * turn[..., None],
        )
        way = way / np.maximum(np.hypot(way[..., 0], way[..., 1]), 1e-30)[..., None]
        at = at + (0.5 * np.where(near, least - distance, 0.0)[..., None] * way).sum(1)
    return [(float(a), float(b)) for a, b in at]


def project(z: Tensor, kl: Tensor | None, symbol: str) -> tuple[np.ndarray, tuple[str, str]]:
    """Places in the plane `[N, 2]`, and the names of its axes."""
    if z.shape[1] == 2:
        return z.numpy(), (f"${symbol.format(1)}$", f"${symbol.format(2)}$")
    if kl is not None:
        i, j = kl.cpu().argsort(descending=True, stable=True)[:2].tolist()
        first, second = (f"${symbol.format(f'{{{d + 1}}}')}$   (KL {float(kl[d]):.2f} nats)" for d in (i, j))
        return z[:, [i, j]].numpy(), (first, second)
    centred = z - z.mean(0)
    _, s, vh = torch.linalg.svd(centred, full_matrices=False)
    axes = vh[:2]
    # The sign of a component is arbitrary; its largest loading is positive, so that figures repeat.
    axes = axes * axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    share = [*(s.square() / s.square().sum().clamp(min=1e-300)).tolist(), 0.0]
    points = torch.nn.functional.pad(centred @ axes.T, (0, 2 - len(axes)))
    return points.numpy(), (f"PC 1 ({share[0]:.0%} var)", f"PC 2 ({share[1]:.0%} var)")


def groups_of(labels: Tensor | Sequence[Any] | None, num_data: int) -> dict[str, tuple[np.ndarray, Any]]:
    """Class name to (mask, colour)."""
    if labels is None:
        return {}
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.shape != (num_data,):
        raise ValueError(f"expected labels [{num_data}], one for each z, got shape {array.shape}")
    classes = np.unique(array).tolist()
    if array.dtype.kind == "U":  # numbers in words go by their value, and before other words
        classes.sort(key=lambda c: (not c.isdecimal(), int(c) if c.isdecimal() else 0, c))
    if len(classes) > MAX_CLASSES:
        raise ValueError(f"expected at most {MAX_CLASSES} classes, got {len(classes)}; try labels=None")
    few = len(classes) <= len(CLASSES)
    colours = CLASSES if few else [colormaps["viridis"](t) for t in np.linspace(0, 1, len(classes))]
    return {str(c): (array == c, colours[i]) for i, c in enumerate(classes)}
