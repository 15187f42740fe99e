"""Resampling of weighted chains, within groups of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .hmc import Point

LEAST = 0.5  # effective sample size of a group, as a share of it, below which it is resampled


def resample_islands(point: Point, log_weights: Tensor, num_islands: int) -> tuple[Point, Tensor]:
    """Draws chains anew by their weights, within islands of them, where these have become uneven.

    Systematic resampling (Douc & Cappe 2005, https://doi.org/10.1109/ISPA.2005.195385). Each survivor takes the mean
    weight of its island, so that means of weights are as before, in expectation for any function of the states.

    Args:
        point: states of K chains for n data, island after island.
        log_weights: theirs so far, `[K, n]`, float64, nats.
        num_islands: R, a divisor of K.
    """
    k, n = log_weights.shape
    size = k // num_islands
    lw = torch.nan_to_num(log_weights, nan=-torch.inf).reshape(num_islands, size, n)
    share = lw.softmax(1)  # NaN where an island has no weight left: it stays as it is
    uneven = 1 / share.square().sum(1) < LEAST * size
    if not bool(uneven.any()):
        return point, log_weights
    mean = torch.logsumexp(lw, 1) - math.log(size)
    places = torch.arange(size, device=lw.device)
    marks = (torch.rand(num_islands, n, 1, dtype=lw.dtype, device=lw.device) + places) / size
    ladder = share.nan_to_num(0.0).cumsum(1).transpose(1, 2).contiguous()
    found = torch.searchsorted(ladder, marks).clamp(max=size - 1).transpose(1, 2)
    found = torch.where(uneven.unsqueeze(1), found, places.reshape(1, -1, 1))
    rows = (found + size * torch.arange(num_islands, device=lw.device).reshape(-1, 1, 1)).reshape(k, n)
    total = torch.where(uneven.unsqueeze(1), mean.unsqueeze(1), lw).reshape(k, n)
    wide = rows.unsqueeze(-1).expand_as(point.u)
    parts = (point.u, point.base, point.slope, point.base_grad, point.slope_grad)
    return Point(*(part.gather(0, wide if part.dim() == 3 else rows) for part in parts)), total
