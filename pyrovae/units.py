"""Numbers in their own units and standardised ones, column by column; worked out in float64."""

from __future__ import annotations

import torch
from torch import Tensor


def to_standard(x: Tensor, center: Tensor, scale: Tensor, log: Tensor) -> Tensor:
    """Own units to standardised ones."""
    wide = x.double()
    # Both branches are worked out: where the logarithm is not taken its argument is 1, which has a gradient.
    wide = torch.where(log, torch.where(log, wide, 1.0).log(), wide)
    return ((wide - center) / scale).to(x.dtype)


def to_units(t: Tensor, center: Tensor, scale: Tensor, log: Tensor) -> Tensor:
    """Standardised units to own ones."""
    wide = center + scale * t.double()
    x = torch.where(log, torch.where(log, wide, 0.0).exp(), wide).to(t.dtype)
    finite = torch.finfo(t.dtype)
    return torch.where(log, x.clamp(finite.tiny, finite.max), x)


def log_slope(x: Tensor, center: Tensor, scale: Tensor, log: Tensor) -> Tensor:
    """ln |dt/dx|."""
    slope = torch.where(log, -torch.where(log, x.double(), 1.0).log(), 0.0)
    return (slope - scale.log()).to(x.dtype)
