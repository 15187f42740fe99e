"""Exact laws of the observables of the Ising torus, and two simple models of it, to hold a model against."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from .observables import correlation, magnetisation
from .observables import energy as energy_of
from .torus import IsingTorus

MAX_EXACT_SIDE: Final = 8  # 2^L states of a row, once for each of L² / 2 frequencies
DRAWS: Final = 20_000  # beyond it
SEED: Final = 0


def energy_levels(L: int) -> Tensor:
    """−2L², −2L² + 4, ..., 2L²: the energies of a torus (some have no states), float64 `[L² + 1]`."""
    return 4 * torch.arange(L * L + 1, dtype=torch.float64, device="cpu") - 2 * L * L


def energy_law(law: IsingTorus) -> Tensor:
    r"""p(E) on `energy_levels(L)`, float64 `[L² + 1]`.

    L <= 8: exact to 1e-14, the Fourier transform of its characteristic function Z(K − iω/4)/Z(K) by the transfer
    matrix (Kaufman 1949 gives Z at real K alone). Beyond: frequencies of 20,000 draws.
    """
    if law.L <= MAX_EXACT_SIDE:
        return _by_fourier(law, lambda omega: (1 / law.T - 0.25j * omega, 0.0))
    levels = (energy_of(_draws(law)) + 2 * law.L**2) / 4
    return _frequencies(levels, law.L)


def up_spins_law(law: IsingTorus) -> Tensor:
    """p(n) of the number n of spins up, 0 ... L², float64 `[L² + 1]`; magnetisation per spin m = 2n/L² − 1.

    L <= 8: exact to 1e-14 by the transfer matrix in an imaginary field. Beyond: frequencies of 20,000 draws.
    """
    if law.L <= MAX_EXACT_SIDE:
        return _by_fourier(law, lambda omega: (1 / law.T, 1j * omega))
    return _frequencies((magnetisation(_draws(law)) + 1) * law.L**2 / 2, law.L)


def exact_correlation(law: IsingTorus) -> Tensor:
    """G(r) = ⟨s_i s_{i+r}⟩ along an axis, r = 0 ... L // 2, float64 `[L // 2 + 1]`; as `pv.data.correlation`.

    L <= 8: exact, tr(S V^r S V^{L−r}) / tr V^L with the transfer matrix V. Beyond: the mean of 20,000 draws.
    """
    if law.L > MAX_EXACT_SIDE:
        return correlation(_draws(law)).mean(0)
    V = _transfer_matrix(law.L, 1 / law.T, 0.0).real
    spin = 2 * _bits(law.L)[:, 0] - 1
    powers = [torch.linalg.matrix_power(V, r) for r in range(law.L + 1)]
    total = powers[law.L].trace()
    ways = [(spin[:, None] * powers[r] * spin) * powers[law.L - r].mT for r in range(law.L // 2 + 1)]
    return torch.stack([w.sum() / total for w in ways])


def independent_spins_kl(law: IsingTorus) -> float:
    """KL(p ‖ best model of independent spins) = L² ln 2 − S, nats: all ⟨s⟩ are 0 on a finite torus."""
    return law.L**2 * math.log(2) - law.entropy


def magnetisation_only_kl(law: IsingTorus) -> float:
    r"""KL of the best model that knows nothing but the law of the magnetisation, nats.

    That model draws n, the number of spins up, from p(n) and then one of the C(L², n) configurations with n
    spins up, all alike: KL = H(n) + E ln C(L², n) − S. A model below it has learned correlations beyond the mean
    field. L > 8: H(n) of draws, with the correction of Miller (1955).
    """
    p, N = up_spins_law(law), law.L**2
    n = torch.arange(N + 1, dtype=torch.float64, device="cpu")
    log_ways = torch.lgamma(torch.tensor(N + 1.0, dtype=torch.float64, device="cpu")) - torch.lgamma(n + 1)
    log_ways = log_ways - torch.lgamma(N - n + 1)
    entropy = -float(torch.xlogy(p, p).sum())
    if law.L > MAX_EXACT_SIDE:
        entropy += (int((p > 0).sum()) - 1) / (2 * DRAWS)
    return entropy + float((p * log_ways).sum()) - law.entropy


def _bits(L: int) -> Tensor:
    return ((torch.arange(2**L, device="cpu").unsqueeze(-1) >> torch.arange(L, device="cpu")) & 1).to(
        torch.float64
    )


def _transfer_matrix(L: int, coupling: complex, field: complex) -> Tensor:
    """exp[K (bonds of a row and to the next one − 2L) + field · spins up], complex128 `[2^L, 2^L]`; tr V^L = Σ."""
    bits = _bits(L)
    spins = 2 * bits - 1
    within, up = (spins * spins.roll(-1, -1)).sum(-1), bits.sum(-1)
    bonds = 0.5 * (within[:, None] + within) + spins @ spins.mT - 2 * L
    exponent = coupling * bonds.to(torch.complex128) + field * 0.5 * (up[:, None] + up)
    return exponent.exp()


def _by_fourier(law: IsingTorus, at: Callable[[float], tuple[complex, complex]]) -> Tensor:
    """p(j), j = 0 ... L², from its characteristic function, of coupling and field `at` ω = 2πk / (L² + 1)."""
    size = law.L**2 + 1
    values = []
    for k in range(size // 2 + 1):  # the others are their complex conjugates
        V = _transfer_matrix(law.L, *at(2 * math.pi * k / size))
        half = torch.linalg.matrix_power(V, law.L // 2)
        rest = half if law.L % 2 == 0 else half @ V
        values.append((half * rest.mT).sum())
    phi = torch.stack(values)
    p = torch.fft.hfft(phi / phi[0].real, n=size) / size
    return p.clamp(min=0.0) / p.clamp(min=0.0).sum()


def _draws(law: IsingTorus) -> Tensor:
    return law.sample((DRAWS,), torch.Generator().manual_seed(SEED))


def _frequencies(levels: Tensor, L: int) -> Tensor:
    counts = torch.bincount(levels.round().long(), minlength=L * L + 1).double()
    return counts / counts.sum()
