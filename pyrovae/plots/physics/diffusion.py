"""Pictures of a diffusion: the chain from noise to data, and its noise schedule."""

from __future__ import annotations

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
        num: rows.
        columns: states shown, evenly over the chain, both ends among them.
        value_range: values of black and white; states outside are cut off.

    Raises:
        ValueError: fewer than 2 states, num or columns out of range; as `plot_images`.
    """
    if len(states) < 2 or num < 1 or columns < 2:
        raise ValueError(
            f"expected at least 2 states and columns and num >= 1, got {len(states)}, {columns} and {num}"
        )
    num = min(num, len(states[0]))
    shown = torch.linspace(0, len(states) - 1, min(columns, len(states))).round().long().unique().tolist()
    columns_of = [states[i][:num] for i in shown] + ([x[:num].to(states[0].dtype)] if x is not None else [])
    rows = list(torch.stack([c.reshape(num, *image_shape) for c in columns_of], 1).cpu())
    low, high = value_range
    breaks = (len(shown),) if x is not None else ()
    ax = plot_images(rows, image_shape, ax, vmin=low, vmax=high, column_breaks=breaks)
    times = [f"{1 - i / (len(states) - 1):.2g}" for i in shown]
    heads = [f"t = {times[0]}", *times[1:], *(["x"] if x is not None else [])]
    width = image_shape[1]
    ax.xaxis.tick_top()
    ax.set_xticks([left + (width - 1) / 2 for left in starts(len(heads), width, GAP, breaks)], heads)
    ax.tick_params(length=0, pad=1)
    return ax


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
    t = torch.linspace(0, 1, points)
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
