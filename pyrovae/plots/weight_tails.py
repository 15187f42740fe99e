"""The largest weights of the best and the worst datum."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from torch import Tensor

from ..evidence.diagnostics import pareto_khat
from .style import LINES, canvas, number


def plot_weight_tails(log_weights: Tensor, data: Sequence[int] | None = None, ax: Axes | None = None) -> Axes:
    """Share of weights above w, against w over the mean weight, on logarithmic axes.

    A tail of Pareto index k is a line of slope -1/k: flatter than -2 (k > 1/2), the weights have no
    variance; flatter than -1, no mean. The legend has the largest weight's share of the sum: near one, an
    estimate stands on a single sample.

    Args:
        log_weights: `[K, N]` in nats, as of `pv.log_weights`.
        data: which data; default: those with the lowest, the median and the highest k-hat.
        ax: to draw into.

    Raises:
        ValueError: for weights of another shape, K < 25, more data than there are colours, or data
            that are not there.
    """
    if log_weights.dim() != 2 or len(log_weights) < 25:
        raise ValueError(f"expected log-weights [K, N] with K >= 25, got shape {tuple(log_weights.shape)}")
    lw = log_weights.detach().double().cpu()
    k, n = lw.shape
    khat = pareto_khat(lw)
    if data is None:
        order = khat.argsort()
        data = list(dict.fromkeys(int(order[i]) for i in (0, n // 2, n - 1)))
    if not data or len(data) > len(LINES) or not all(0 <= i < n for i in data):
        raise ValueError(f"expected 1 to {len(LINES)} data of {n}, got {list(data)}")
    share = torch.arange(1, k + 1, dtype=torch.float64) / k
    with canvas(ax, 3.4, 2.6) as ax:
        for colour, i in zip(LINES, data, strict=False):
            relative = (lw[:, i] - (lw[:, i].logsumexp(0) - math.log(k))).sort(descending=True).values
            shown = torch.isfinite(relative)
            top = float(relative[0].exp() / k)
            ax.plot(
                relative[shown].exp().numpy(),
                share[shown].numpy(),
                color=colour,
                label=f"#{i}: $\\hat{{k}}$ = {number(float(khat[i]))}, max. {top:.1%}",
            )
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xlim(left=1e-2)
        ax.set_ylim(0.7 / k, 1.3)
        ax.set_xlabel("w / mean weight")
        ax.set_ylabel("share of weights ≥ w")
        ax.legend(loc="upper right")
    return ax
