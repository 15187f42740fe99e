"""The law of the Ising torus at one temperature: exact density, exact thermodynamics, draws."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import torch
from torch import Tensor

from .kaufman import log_partition
from .observables import energy
from .swendsen_wang import Chains, swendsen_wang
from .transfer_matrix import MAX_SIDE, transfer_matrix_sample

T_CRITICAL: Final = 2 / math.log1p(math.sqrt(2))


@dataclass(frozen=True)
class IsingTorus:
    """p(x) = exp(−E(x) / T) / Z, E = −Σ s_i s_j over the bonds of the L x L torus, s = 2x − 1, J = k_B = 1.

    A density with draws, as `pv.divergences.kl` and `js` want it: `sample`, `log_prob`. All extensive figures are of
    the whole lattice; float64. L = 2 counts each pair of neighbours twice.

    Args:
        L: Side.
        T: Temperature in units of J; critical on the infinite lattice at 2 / ln(1 + √2) = 2.269 (`T_CRITICAL`).

    Raises:
        ValueError: If L is not an integer >= 2, or T not positive and finite.
    """

    L: int
    T: float

    def __post_init__(self) -> None:
        if isinstance(self.L, bool) or not isinstance(self.L, int) or self.L < 2:
            raise ValueError(f"expected a torus of side L >= 2 (an integer), got L={self.L!r}; try L=8")
        if isinstance(self.T, bool) or not isinstance(self.T, int | float) or not 0 < self.T < math.inf:
            raise ValueError(f"expected a temperature T > 0 in units of J, got T={self.T!r}; try T=2.27")

    @cached_property
    def _derivatives(self) -> tuple[float, float, float]:
        """ln Z and its first two derivatives by K."""
        with torch.enable_grad():
            K = torch.tensor(1 / self.T, dtype=torch.float64, requires_grad=True, device="cpu")
            value = log_partition(K, self.L)
            (first,) = torch.autograd.grad(value, K, create_graph=True)
            (second,) = torch.autograd.grad(first, K)
        return value.item(), first.item(), second.item()

    @property
    def log_partition(self) -> float:
        """ln Z in nats (Kaufman 1949)."""
        return self._derivatives[0]

    @property
    def free_energy(self) -> float:
        """F = −T ln Z, in units of J."""
        return -self.T * self.log_partition

    @property
    def energy(self) -> float:
        """Mean energy ⟨E⟩, in units of J."""
        return -self._derivatives[1]

    @property
    def entropy(self) -> float:
        """S = ln Z + ⟨E⟩ / T in nats: the least −⟨ln p⟩ that any model can reach on such data."""
        return self.log_partition + self.energy / self.T

    @property
    def heat_capacity(self) -> float:
        """C = Var(E) / T², in units of k_B."""
        return self._derivatives[2] / self.T**2

    def log_prob(self, x: Tensor) -> Tensor:
        """Exact ln p(x) `[...]` in nats, float64, of bits `[..., L*L]`.

        Raises:
            ValueError: If x is not made of configurations of this torus.
        """
        if x.dim() == 0 or x.shape[-1] != self.L**2:
            raise ValueError(
                f"expected configurations [..., {self.L**2}] of L={self.L}, got shape {tuple(x.shape)}"
            )
        return -energy(x) / self.T - self.log_partition

    def sample(self, sample_shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Bits float32 `[*sample_shape, L*L]`: independent for L <= 10, else by Swendsen–Wang (`chains`)."""
        num = math.prod(sample_shape)
        if self.L <= MAX_SIDE:
            x = transfer_matrix_sample(self.L, self.T, num, generator)
        else:
            x = self.chains(num, generator).samples.flatten(0, 1)[:num]
        return x.reshape(*sample_shape, self.L**2)

    def chains(self, num: int, generator: torch.Generator | None = None) -> Chains:
        """Draws at least `num` configurations by Swendsen–Wang chains, with their autocorrelation time."""
        return swendsen_wang(self.L, self.T, num, generator)
