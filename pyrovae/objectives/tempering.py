"""Parallel tempering: persistent chains at several temperatures that change places."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..programs import AnnealedFamily
from .phases import PhaseObjective, _whole

TEMPERATURES = tuple(1 / (1 - i / 10) for i in range(10))


class ParallelTempering(PhaseObjective):
    r"""Persistent chains on a ladder of temperatures; those at T = 1 are the negative phase (Desjardins et al. 2010).

    After k transitions each, neighbours on the ladder (pairs even and odd in turn) change places with probability
    :math:`\min(1, \exp[F_a(x_a) + F_b(x_b) - F_a(x_b) - F_b(x_a)])`, beta = 1/T along the program's own annealing
    (for `RBM.initialised_to` data: towards their base rates). Hot chains cross between modes that cold ones stay in.
    `swap_acceptance` is logged: below some tenths the ladder has too few steps.

    Args:
        steps: k.
        num_chains: at each temperature.
        temperatures: rising from 1; default 1/beta for beta = 1, 0.9, ..., 0.1.
        exact: as in `PhaseObjective`.

    Raises:
        ValueError: steps or num_chains < 1; temperatures that do not rise from 1, are not finite, or fewer than two.

    Source:
        Tempered Markov chain Monte Carlo for training of restricted Boltzmann machines,
        https://proceedings.mlr.press/v9/desjardins10a.html
    """

    def __init__(
        self,
        steps: int = 1,
        num_chains: int = 100,
        temperatures: Sequence[float] = TEMPERATURES,
        *,
        exact: bool = False,
    ) -> None:
        _whole(type(self).__name__, "num_chains", num_chains)
        ladder = tuple(float(t) for t in temperatures)
        rising = all(a < b for a, b in pairwise(ladder))
        if len(ladder) < 2 or ladder[0] != 1 or not rising or not math.isfinite(ladder[-1]):
            raise ValueError(
                f"expected at least two finite temperatures that rise from 1, got {ladder}; try (1, 1.5, 2)"
            )
        self.num_chains, self.temperatures = num_chains, ladder
        super().__init__(steps, exact=exact)

    def reset(self) -> None:
        """Also of the turn of the pairs."""
        super().reset()
        self._turn = 0

    def negative(self, family: AnnealedFamily, x: Tensor) -> Tensor:
        """The chains at T = 1, after k transitions and one round of exchanges at all temperatures."""
        rungs, event = len(self.temperatures), x.shape[1:]
        if self._chains is None:
            self._chains = family.start(rungs * self.num_chains).to(x).reshape(rungs, self.num_chains, *event)
        betas = 1 / torch.tensor(self.temperatures, dtype=torch.float64, device=x.device)
        each = betas.repeat_interleave(self.num_chains).to(x)
        chains = family.transition(self._chains.to(x).flatten(0, 1), self.steps, each)
        chains = chains.reshape(rungs, self.num_chains, *event)
        self._chains = self._exchanged(family, chains, betas.to(x))
        return self._chains[0]

    def _exchanged(self, family: AnnealedFamily, chains: Tensor, betas: Tensor) -> Tensor:
        first = torch.arange(self._turn, len(chains) - 1, 2, device=chains.device)
        # With two rungs there is one pair, and it has every turn.
        self._turn = (self._turn + 1) % 2 if len(chains) > 2 else 0
        second = first + 1
        a, b = (betas[i].unsqueeze(-1).expand(-1, self.num_chains).flatten() for i in (first, second))
        cold, hot = chains[first].flatten(0, 1), chains[second].flatten(0, 1)
        # F_b(x_a) - F_a(x_a) + F_a(x_b) - F_b(x_b) is what the exchange costs.
        cost = family.free_energy_change(cold, a, b) + family.free_energy_change(hot, b, a)
        swap = torch.rand_like(cost).log() < -cost
        self._sums["swap_acceptance"] = self._sums.get("swap_acceptance", 0.0) + float(swap.double().mean())
        keep = swap.reshape(len(first), self.num_chains, *(1,) * (chains.dim() - 2))
        out = chains.clone()
        out[first] = torch.where(keep, chains[second], chains[first])
        out[second] = torch.where(keep, chains[first], chains[second])
        return out

    def state_dict(self) -> dict[str, object]:
        """Chains, turn and sums."""
        return {**super().state_dict(), "turn": self._turn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from `state_dict()`."""
        super().load_state_dict(state)
        self._turn = int(state["turn"])
