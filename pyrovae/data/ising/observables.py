"""Observables of the Ising torus that a physicist measures; bits x in {0, 1} are spins s = 2x - 1."""

import math

import torch
from torch import Tensor


def to_spins(x: Tensor) -> Tensor:
    """Spins -1, +1 on the torus, float64 `[..., L, L]`, of bits `[..., L*L]`.

    Raises:
        ValueError: If the last dimension is no square of L >= 2, or a value is neither 0 nor 1.
    """
    L = math.isqrt(x.shape[-1]) if x.dim() else 0
    if L < 2 or x.shape[-1] != L * L:
        raise ValueError(
            f"expected configurations [..., L*L] with L >= 2, got shape {tuple(x.shape)}; try x.flatten(-2)"
        )
    if not bool(((x == 0) | (x == 1)).all()):
        raise ValueError(
            "expected bits 0 and 1, got other values; try (s + 1) / 2 where s are spins -1 and +1"
        )
    return (2 * x.to(torch.float64) - 1).unflatten(-1, (L, L))


def energy(x: Tensor) -> Tensor:
    """Energy −Σ s_i s_j over the 2 L² bonds `[...]` of bits `[..., L*L]`, in units of J.

    Raises:
        ValueError: If x is not made of such configurations.
    """
    s = to_spins(x)
    return -(s * (s.roll(-1, -1) + s.roll(-1, -2))).sum((-1, -2))


def magnetisation(x: Tensor) -> Tensor:
    """Magnetisation per spin `[...]`, in [-1, 1], of bits `[..., L*L]`.

    Raises:
        ValueError: If x is not made of such configurations.
    """
    return to_spins(x).mean((-1, -2))


def correlation(x: Tensor) -> Tensor:
    """Two-point correlation G(r) = ⟨s_i s_{i+r}⟩ along the axes, r = 0 ... L // 2: `[..., L // 2 + 1]`.

    Averaged over the sites and both axes of each configuration; G(0) = 1. It is not connected: ⟨s⟩ = 0 on
    a finite torus.

    Raises:
        ValueError: If x is not made of configurations `[..., L*L]`.
    """
    s = to_spins(x)
    shifts = range(s.shape[-1] // 2 + 1)
    return torch.stack([0.5 * (s * (s.roll(-r, -1) + s.roll(-r, -2))).mean((-1, -2)) for r in shifts], -1)
