"""Cluster Monte Carlo on the Ising torus, with the autocorrelation it has."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

BURN_IN, PILOT = 100, 200
MIN_CHAINS, MAX_CHAINS = 16, 128
WINDOW = 6  # Sokal's window: sums up to WINDOW autocorrelation times
SPACING = 4  # draws are this many autocorrelation times apart, so correlated by about e^-4


@dataclass(frozen=True)
class Chains:
    """Draws of independent Markov chains.

    Attributes:
        samples: Bits float32 `[draws, chains, L*L]`.
        autocorrelation: Integrated autocorrelation time in sweeps, the larger of energy's and |m|'s; 0.5 is
            independence.
        spacing: Sweeps from one draw to the next.
    """

    samples: Tensor
    autocorrelation: float
    spacing: int


def swendsen_wang(L: int, T: float, num: int, generator: torch.Generator | None = None) -> Chains:
    """Draws at least `num` configurations with law exp(−E(x) / T) / Z, nearly independent.

    A sweep opens each bond between equal spins with probability 1 − e^{−2/T} and gives every cluster a new
    sign; all chains are one graph. After a burn-in the autocorrelation is measured on a pilot run, then
    frozen: it fixes the spacing of the draws.
    Source: Swendsen and Wang (1987), https://doi.org/10.1103/PhysRevLett.58.86.

    Raises:
        RuntimeError: If the chains forget too slowly for their burn-in.
    """
    chains = max(MIN_CHAINS, min(MAX_CHAINS, num // 8))
    site = np.arange(chains * L * L, dtype=np.int32).reshape(chains, L, L)
    bonds = site.ravel(), np.roll(site, -1, 2).ravel(), np.roll(site, -1, 1).ravel()
    opening = -math.expm1(-2 / T)
    spin = np.sign(_uniform(site.size, generator) - 0.5)
    for _ in range(BURN_IN):
        spin = _sweep(spin, bonds, opening, generator)
    energies, sizes = np.empty((PILOT, chains)), np.empty((PILOT, chains))
    for t in range(PILOT):
        spin = _sweep(spin, bonds, opening, generator)
        pairs = spin * (spin[bonds[1]] + spin[bonds[2]])
        energies[t] = -pairs.reshape(chains, -1).sum(1)
        sizes[t] = np.abs(spin.reshape(chains, -1).mean(1))
    tau = max(autocorrelation_time(energies), autocorrelation_time(sizes))
    if 5 * tau > BURN_IN:
        raise RuntimeError(
            f"expected an autocorrelation time of at most {BURN_IN / 5:.0f} sweeps, got {tau:.1f}; try a smaller L"
        )
    spacing = math.ceil(SPACING * tau)
    draws = -(-num // chains)
    samples = torch.empty(draws, chains, L * L, device="cpu")
    for k in range(draws):
        for _ in range(spacing):
            spin = _sweep(spin, bonds, opening, generator)
        samples[k] = torch.from_numpy((spin > 0).reshape(chains, -1))
    return Chains(samples, tau, spacing)


def autocorrelation_time(series: np.ndarray) -> float:
    """Integrated time ½ + Σ_t ρ(t) of a stationary series `[time, chains]`, in steps, at least ½.

    ρ is pooled over the chains about their common mean, the sum stops at WINDOW times itself (Sokal, 1997,
    https://doi.org/10.1007/978-1-4899-0319-8_6).
    """
    centred = series - series.mean()
    variance = float((centred**2).mean())
    if variance == 0:
        return 0.5
    tau = 0.5
    for t in range(1, len(series)):
        tau += float((centred[t:] * centred[:-t]).mean()) / variance
        if t >= WINDOW * tau:
            break
    return max(tau, 0.5)


def _uniform(n: int, generator: torch.Generator | None) -> np.ndarray:
    u: np.ndarray = torch.rand(n, generator=generator, dtype=torch.float64, device="cpu").numpy()
    return u


def _sweep(
    spin: np.ndarray,
    bonds: tuple[np.ndarray, np.ndarray, np.ndarray],
    opening: float,
    generator: torch.Generator | None,
) -> np.ndarray:
    here, n = bonds[0], len(spin)
    u = _uniform(2 * n, generator)
    ends = [
        np.flatnonzero((spin == spin[b]) & (v < opening))
        for b, v in zip(bonds[1:], (u[:n], u[n:]), strict=True)
    ]
    start = np.concatenate([here[e] for e in ends])
    stop = np.concatenate([b[e] for b, e in zip(bonds[1:], ends, strict=True)])
    graph = coo_array((np.ones(len(start), dtype=np.int8), (start, stop)), shape=(n, n))
    count, label = connected_components(graph, directed=False)
    signs = np.where(_uniform(count, generator) < 0.5, -1.0, 1.0)
    flipped: np.ndarray = signs[label]
    return flipped
