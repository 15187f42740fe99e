"""Grids and paths in a latent space."""

from __future__ import annotations

import torch
from torch import Tensor


def gaussian_quantiles(steps: int) -> Tensor:
    """Φ⁻¹(u) at the midpoints u = (i + ½)/steps, `[steps]`, ascending, float64.

    Equally probable steps under N(0, 1) (Kingma & Welling 2014, appendix A).
    https://arxiv.org/abs/1312.6114

    Raises:
        ValueError: steps < 1.
    """
    if steps < 1:
        raise ValueError(f"expected steps >= 1, got {steps}")
    return torch.special.ndtri((torch.arange(steps, dtype=torch.float64, device="cpu") + 0.5) / steps)


def lerp(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """(1 − t) a + t b for `steps` values of t from 0 to 1; `[..., D]` to `[steps, ..., D]`.

    Raises:
        ValueError: for shapes that differ, or steps < 2.
    """
    t = _times(start, end, steps)
    return (1 - t) * start + t * end


def slerp(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """[sin((1 − t) ω) a + sin(t ω) b] / sin ω, ω the angle between a and b (Shoemake 1985, White 2016).

    Ends of one norm are joined at that norm, where a high-dimensional Gaussian has its mass; a
    straight line cuts through the middle, where it has none. Vectors (nearly) along one line, or of
    length zero, are joined by it. https://arxiv.org/abs/1609.04468

    Args:
        start, end: `[..., D]`, D >= 2.
        steps: values of t from 0 to 1.

    Returns:
        `[steps, ..., D]`.

    Raises:
        ValueError: for shapes that differ, D < 2, or steps < 2.
    """
    t = _times(start, end, steps)
    if start.shape[-1] < 2:
        raise ValueError(f"expected vectors of at least 2 dims for an angle, got {start.shape[-1]}; try lerp")
    # Through half the chords: exact for small angles, where an arccosine has lost its digits.
    a, b = (torch.nn.functional.normalize(v.double(), dim=-1) for v in (start, end))
    omega = 2 * torch.atan2((a - b).norm(dim=-1, keepdim=True), (a + b).norm(dim=-1, keepdim=True))
    sine = omega.sin()
    flat = (sine.abs() < 1e-6) | ((a == 0).all(-1, keepdim=True) | (b == 0).all(-1, keepdim=True))
    safe = torch.where(flat, torch.ones_like(sine), sine)
    here = torch.sin((1 - t) * omega) / safe * start + torch.sin(t * omega) / safe * end
    return torch.where(flat, lerp(start, end, steps), here.to(start.dtype))


def _times(start: Tensor, end: Tensor, steps: int) -> Tensor:
    if start.shape != end.shape or start.dim() < 1:
        raise ValueError(
            f"expected two ends of one shape [..., D], got {tuple(start.shape)} and {tuple(end.shape)}"
        )
    if steps < 2:
        raise ValueError(f"expected steps >= 2, got {steps}")
    t = torch.linspace(0, 1, steps, dtype=start.dtype, device=start.device)
    return t.reshape(-1, *(1,) * start.dim())
