"""The Ising torus written as a restricted Boltzmann machine."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyrovae.data import IsingTorus


def ising_parameters(law: IsingTorus) -> tuple[Tensor, Tensor, Tensor]:
    """W `[L², 2L²]`, b, c of the machine whose visible bits are the spins s = 2v - 1; float64.

    With one hidden spin t = 2h - 1 a bond, exp(K s s') = ½ exp(-K) Σ_t exp(w t (s + s')), w = ½ arccosh(exp 2K),
    K = 1/T; in bits the exponent is 4w h (v + v') - 4w h - 2w (v + v') + 2w.
    """
    w = coupling(law)
    site = torch.arange(law.L**2).reshape(law.L, law.L)
    ends = torch.cat(
        [torch.stack([site.flatten(), site.roll(-1, dim).flatten()], -1) for dim in (1, 0)]
    )  # [2L², 2]
    weight = torch.zeros(law.L**2, len(ends), dtype=torch.float64)
    weight[ends, torch.arange(len(ends)).unsqueeze(-1)] = 4 * w
    # Each site has four bonds (with L = 2 two pairs of them are between the same sites).
    visible = torch.full((law.L**2,), -8 * w, dtype=torch.float64)
    return weight, visible, torch.full((len(ends),), -4 * w, dtype=torch.float64)


def ising_log_constant(law: IsingTorus) -> float:
    """ln C, with exp(-F(v)) = C exp(-E(v) / T) for the free energy F of that machine: 2L² (ln 2 + K - 2w)."""
    return 2 * law.L**2 * (math.log(2) + 1 / law.T - 2 * coupling(law))


def coupling(law: IsingTorus) -> float:
    """w = ½ arccosh(exp(2K))."""
    K = 1 / law.T
    # arccosh(y) = ln(y + sqrt(y² - 1)), in units of y: finite at any temperature above 0.
    return K + 0.5 * math.log1p(math.sqrt(-math.expm1(-4 * K)))
