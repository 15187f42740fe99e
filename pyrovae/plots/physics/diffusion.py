"""Pictures of a diffusion: the chain from noise to data, and its noise schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor

from ..images import GAP, plot_images, starts
from ..style import LINES, canvas


def plot_chain(
    states: Sequence[Tensor],
    image_shape: tuple[int, int],
    ax: Axes | None = None,
    *,
    x: Tensor | None = None,
    gammas: Tensor | None = None,
    num: int = 6,
    columns: int = 10,
    value_range: tuple[float, float] = (-1.0, 1.0),
) -> Axes:
    """Ancestral draws from noise (left) to data (right), one row a draw; above them the time t.

    Args:
        states: z_1, ..., z_0, each `[n, *event]`, as a diffusion's `chain` yields them.
        image_shape: height and width.
        ax: to draw into.
        x: what was drawn from p(x | z_0), on the scale of `value_range`, as a last column.
        gammas: -ln SNR at t = 0, ..., 1, one a state, as a diffusion's `gammas` gives them: the SNR is shown too.
        num: rows.
        columns: states shown, evenly over the chain, both ends among them.
        value_range: values of black and white; states outside are cut off.

    Raises:
        ValueError: fewer than 2 states, num or columns out of range, gammas of another number; as `plot_images`.
    """
    backwards = None if gammas is None else gammas.flip(0)
    times = torch.linspace(1, 0, max(1, len(states)), device="cpu")
    return _states(states, times, image_shape, ax, x, False, backwards, num, columns, value_range)


def plot_noising(
    states: Sequence[Tensor],
    image_shape: tuple[int, int],
    ax: Axes | None = None,
    *,
    x: Tensor | None = None,
    gammas: Tensor | None = None,
    num: int = 6,
    columns: int = 10,
    value_range: tuple[float, float] = (-1.0, 1.0),
) -> Axes:
    """The way forward, from data (left) to noise (right), one row a datum; above them t and the signal-to-noise ratio.

    Args:
        states: z_0, ..., z_1, each `[n, *event]`, as a diffusion's `noising` yields them.
        image_shape, ax, gammas, num, columns, value_range: as in `plot_chain`.
        x: the data, on the scale of `value_range`, as a first column.

    Raises:
        ValueError: as `plot_chain`.
    """
    times = torch.linspace(0, 1, max(1, len(states)), device="cpu")
    return _states(states, times, image_shape, ax, x, True, gammas, num, columns, value_range)


def _states(
    states: Sequence[Tensor],
    times: Tensor,
    image_shape: tuple[int, int],
    ax: Axes | None,
    x: Tensor | None,
    x_first: bool,
    gammas: Tensor | None,
    num: int,
    columns: int,
    value_range: tuple[float, float],
) -> Axes:
    """Some states of a chain, in its order, with x before or behind them."""
    if len(states) < 2 or num < 1 or columns < 2:
        raise ValueError(
            f"expected at least 2 states and columns and num >= 1, got {len(states)}, {columns} and {num}"
        )
    if gammas is not None and len(gammas) != len(states):
        raise ValueError(f"expected one of gammas for each of {len(states)} states, got {len(gammas)}")
    num = min(num, len(states[0]))
    shown = (
        torch.linspace(0, len(states) - 1, min(columns, len(states)), device="cpu")
        .round()
        .long()
        .unique()
        .tolist()
    )
    pictures = [states[i][:num] for i in shown]
    heads = [f"{float(times[i]):.2g}" for i in shown]
    ratios = None if gammas is None else [_ratio(float(gammas[i])) for i in shown]
    if ratios is not None:
        heads = [f"{t}\n{ratio}" for t, ratio in zip(heads, ratios, strict=True)]
    heads[0] = f"t = {heads[0]}" if ratios is None else "t = " + heads[0].replace("\n", "\nSNR ")
    breaks: tuple[int, ...] = ()
    if x is not None:
        data = x[:num].to(states[0].dtype)
        pictures, heads = (
            ([data, *pictures], ["x", *heads]) if x_first else ([*pictures, data], [*heads, "x"])
        )
        breaks = (1,) if x_first else (len(shown),)
    rows = list(torch.stack([c.reshape(num, *image_shape) for c in pictures], 1).cpu())
    low, high = value_range
    ax = plot_images(rows, image_shape, ax, vmin=low, vmax=high, column_breaks=breaks)
    width = image_shape[1]
    ax.xaxis.tick_top()
    ax.set_xticks([left + (width - 1) / 2 for left in starts(len(heads), width, GAP, breaks)], heads)
    ax.tick_params(length=0, pad=1)
    return ax


def _ratio(gamma: float) -> str:
    """exp(-gamma), short."""
    value = math.exp(-gamma)
    return f"{value:.0f}" if value >= 9.5 else f"{value:.2g}"


def plot_noise_schedule(
    schedules: Mapping[str, Callable[[Tensor], tuple[Tensor, Tensor]]],
    ax: Axes | None = None,
    *,
    points: int = 201,
) -> Axes:
    """-ln SNR against time.

    Args:
        schedules: name to a function of t that returns (gamma, its derivative).
        ax: to draw into.
        points: of each curve.

    Raises:
        ValueError: no schedules.
    """
    if not schedules:
        raise ValueError("expected at least one schedule, got none")
    t = torch.linspace(0, 1, points, device="cpu")
    with canvas(ax, 3.4, 2.4) as ax, torch.no_grad():
        for i, (name, schedule) in enumerate(schedules.items()):
            where: Any = next(iter(getattr(schedule, "parameters", lambda: iter(()))()), t)
            gamma = schedule(t.to(where.device, where.dtype))[0].cpu()
            ax.plot(
                t.tolist(),
                gamma.tolist(),
                "-" if i % 2 == 0 else "--",
                color=LINES[i % len(LINES)],
                label=name,
            )
        ax.set_xlabel("time t")
        ax.set_ylabel(r"$\gamma(t) = -\ln\,\mathrm{SNR}$")
        ax.set_xlim(0, 1)
        if len(schedules) > 1:
            ax.legend(loc="upper left")
    return ax
