"""Exact, independent draws of the Ising torus, row by row."""

import torch
from torch import Tensor

MAX_SIDE = 10  # 2^L states of a row: 1024 x 1024 matrices, of which L are kept
ROWS_AT_ONCE = 2048
NOTHING = 1e-150  # products of two such entries are subnormal numbers, with which processors are a hundred times slower


def transfer_matrix_sample(L: int, T: float, num: int, generator: torch.Generator | None = None) -> Tensor:
    r"""Independent configurations, bits float32 `[num, L*L]`, from p(x) = exp(−E(x) / T) / Z itself.

    With rows a_1 ... a_L and V(a, b) = exp[K/2 (h(a) + h(b)) + K a·b], h(a) = Σ_i a_i a_{i+1}, the law is
    Π_k V(a_k, a_{k+1}) on a ring: p(a_1) ∝ V^L(a_1, a_1) and
    p(a_{k+1} | a_k, a_1) ∝ V(a_k, a_{k+1}) V^{L−k}(a_{k+1}, a_1). Cost: L matrices of side 2^L.
    Source: Kramers and Wannier (1941), https://doi.org/10.1103/PhysRev.60.252.

    Raises:
        ValueError: If L is not in 2 ... 10.
    """
    if not 2 <= L <= MAX_SIDE:
        raise ValueError(
            f"expected 2 <= L <= {MAX_SIDE} (a row has 2^L states), got L={L}; try swendsen_wang beyond"
        )
    states = torch.arange(2**L, device="cpu")
    bits = (states.unsqueeze(-1) >> torch.arange(L, device="cpu")) & 1
    spins = (2 * bits - 1).to(torch.float64)
    within = (spins * spins.roll(-1, -1)).sum(-1)
    # The largest entry is 1, of equal rows: what is left out has a share below 2^(L*L) NOTHING.
    V = torch.exp((0.5 * (within[:, None] + within) + spins @ spins.mT - 2 * L) / T)
    V.masked_fill_(V < NOTHING, 0.0)
    powers = [V]
    for _ in range(L - 1):
        power = powers[-1] @ V
        power /= power.max()
        powers.append(power.masked_fill_(power < NOTHING, 0.0))
    rows = torch.empty(num, L, dtype=torch.long, device="cpu")
    for start in range(0, num, ROWS_AT_ONCE):
        block = rows[start : start + ROWS_AT_ONCE]
        first = _draw(powers[L - 1].diagonal().expand(len(block), -1), generator)
        block[:, 0] = first
        for k in range(1, L):
            block[:, k] = _draw(V[block[:, k - 1]] * powers[L - 1 - k][first], generator)
    return bits[rows].flatten(1).to(torch.float32)


def _draw(weights: Tensor, generator: torch.Generator | None) -> Tensor:
    """A state `[n]` by its weight `[n, states]`, in float64: torch.multinomial would draw in float32 steps."""
    cumulative = weights.cumsum(-1)
    u = (
        torch.rand(len(weights), 1, generator=generator, dtype=torch.float64, device="cpu")
        * cumulative[:, -1:]
    )
    return torch.searchsorted(cumulative, u, right=True).clamp(max=weights.shape[-1] - 1).squeeze(-1)
