"""Content of each level of a hierarchy, in bars and in pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from matplotlib.axes import Axes
from torch import Tensor

from ...programs import decode, reconstruct, simulate
from ..images import plot_images
from ..style import BLUE, GREY, canvas, number, plain


class Level(Protocol):
    """Level as it is drawn: `pyrovae.training.Level` has these fields."""

    @property
    def site(self) -> str:
        """Its name."""

    @property
    def width(self) -> int:
        """Numbers in it."""

    @property
    def kl(self) -> float:
        """Nats per datum."""

    @property
    def se(self) -> float:
        """Standard error of kl."""

    @property
    def active_units(self) -> int:
        """Units that follow the data."""

    @property
    def collapsed(self) -> bool:
        """Whether it says nothing."""


def plot_level_kl(levels: Sequence[Level], ax: Axes | None = None) -> Axes:
    """KL of each level in nats per datum, the top level uppermost; active units beside it.

    Args:
        levels: of `pyrovae.training.level_report`.
        ax: to draw into.

    Raises:
        ValueError: no levels.
    """
    if not levels:
        raise ValueError("expected at least one level, got none")
    with canvas(ax, 3.4, 0.7 + 0.26 * len(levels)) as ax:
        places = range(len(levels))
        ax.barh(
            places,
            [v.kl for v in levels],
            xerr=[v.se for v in levels],
            height=0.62,
            color=[GREY if v.collapsed else BLUE for v in levels],
            error_kw={"linewidth": 0.8},
        )
        high = max(0.0, *(v.kl + v.se for v in levels)) or 1.0
        for i, v in zip(places, levels, strict=True):
            state = "collapsed" if v.collapsed else f"{v.active_units}/{v.width}"
            ax.text(
                max(v.kl + v.se, 0) + 0.02 * high, i, f"{number(v.kl)} ({state})", va="center", fontsize=7
            )
        ax.set_yticks(list(places), [plain(v.site) for v in levels])
        ax.set_xlim(min(0.0, *(v.kl for v in levels)), 1.34 * high)
        ax.invert_yaxis()
        ax.grid(visible=False, axis="y")
        ax.set_xlabel("KL [nats per datum] (active units/width)")
    return ax


def plot_levels(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    image_shape: tuple[int, int],
    ax: Axes | None = None,
    *,
    vmin: float | None = None,
    vmax: float | None = None,
    seed: int = 0,
) -> Axes:
    """Pictures of which level holds what: data, and the model's draws from ever fewer of the levels inferred from them.

    The first row of reconstructions keeps all latents of the guide, the last one the top level alone; levels
    below those kept are at the mean of the model's p(z_t | z_{t+1}).

    Args:
        model, guide: a pair of several latent sites.
        x: data, `[n, *event]`, one column each.
        image_shape: height and width.
        ax: to draw into.
        vmin, vmax: values of black and white.
        seed: of the draws.

    Raises:
        ValueError: a program without latents; as `plot_images`.
    """
    drawn = reconstruct(model, guide, x, seed=seed)
    names = list(drawn.latents)
    if not names:
        raise ValueError("expected a program with latents, got one without")
    rows, labels = [x, drawn.mean.reshape(x.shape)], ["data", _kept(names)]
    for last in range(len(names) - 1, 0, -1):
        given = {n: drawn.latents[n] for n in names[:last]}
        rows.append(decode(model, given, x, means=True, seed=seed).mean.reshape(x.shape))
        labels.append(_kept(names[:last]))
    return plot_images(rows, image_shape, ax, labels=labels, vmin=vmin, vmax=vmax)


def plot_level_samples(
    model: Callable[..., Any],
    like: Tensor,
    image_shape: tuple[int, int],
    ax: Axes | None = None,
    *,
    num: int = 10,
    vmin: float | None = None,
    vmax: float | None = None,
    seed: int = 0,
) -> Axes:
    """Pictures of what each level decides: one draw of the model, its upper levels kept and those below drawn anew.

    Args:
        model: of several latent sites.
        like: data of which one row gives the shape.
        image_shape: height and width.
        ax: to draw into.
        num: draws a row.
        vmin, vmax: values of black and white.
        seed: of the draws.

    Raises:
        ValueError: num < 1, a program without latents; as `plot_images`.
    """
    if num < 1:
        raise ValueError(f"expected num >= 1, got {num}")
    like = like[:1].expand(num, *like.shape[1:])
    free = simulate(model, num, like, seed=seed)
    names = list(free.latents)
    if not names:
        raise ValueError("expected a program with latents, got one without")
    rows, labels = [free.mean.reshape(like.shape)], ["all free"]
    for last in range(1, len(names)):
        given = {n: torch.cat([free.latents[n][:1]] * num) for n in names[:last]}
        rows.append(decode(model, given, like, seed=seed + last).mean.reshape(like.shape))
        labels.append(_kept(names[:last]))
    return plot_images(rows, image_shape, ax, labels=labels, vmin=vmin, vmax=vmax)


def _kept(names: Sequence[str]) -> str:
    return f"{names[0]} kept" if len(names) == 1 else f"{names[0]} to {names[-1]} kept"
