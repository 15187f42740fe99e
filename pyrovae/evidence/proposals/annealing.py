"""Chains annealed from a proposal to the posterior, where no number of its draws would do."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...programs import Program
from ...programs.latents.densities import Densities
from ...programs.latents.terms import Terms, differentiate
from ...programs.memory import budget_on, bytes_per_pair
from ..chains.annealed_path import anneal, check_num_temperatures, power_schedule
from ..chains.hmc import Point
from ..chains.pilot import tune
from ..core.checks import check_count, check_weights
from ..core.estimator import PerDatum
from ..core.execution import Execution
from ..estimators.importance_sampling import IS
from ..weights.delete_one import stratified_variance
from .proposal import Proposal

LEAST = 100  # chains, so that guide and prior have some
TUNED = 64  # chains of the run that step sizes and temperatures are tuned by
BACKWARD = 3  # live bytes of a gradient, in those of a forward pass


@dataclass(frozen=True)
class Annealing:
    """Annealed importance sampling from proposals of the data's own.

    Chains start at draws of the proposal q_n, guide and prior among them, and go along q_n^{1 - b} p(x, z)^b by
    Hamiltonian moves (Neal 2001, https://arxiv.org/abs/physics/9803008). E w = p(x) for any temperatures and step
    sizes that do not depend on these chains: draws of their own have fixed them.

    Args:
        num_temperatures: T, both ends counted.
        num_chains: K.
        leapfrog: steps of a move.
        target_acceptance: aimed at by the tuning.

    Raises:
        ValueError: fewer than two temperatures, 100 chains (guide and prior have some of them) or one leapfrog step.

    Example:
        >>> Annealing(num_temperatures=100).num_chains
        1000
    """

    num_temperatures: int = 40
    num_chains: int = 1000
    leapfrog: int = 8
    target_acceptance: float = 0.7

    def __post_init__(self) -> None:
        check_num_temperatures(self.num_temperatures)
        check_count("num_chains", self.num_chains, LEAST)
        check_count("leapfrog", self.leapfrog)
        if not 0 < self.target_acceptance < 1:
            raise ValueError(f"expected target_acceptance in (0, 1), got {self.target_acceptance}")

    def estimate(
        self, proposal: Proposal, num_chains: int, execution: Execution, stream: str, *counters: int
    ) -> PerDatum:
        """ln of the mean weight of fresh chains; noise depends on (seed, stream, counters)."""
        program, seed = proposal.program, execution.seed
        path = _Path(proposal, proposal.shares_of(num_chains))
        u, _, _ = proposal.draws(num_chains, execution, f"{stream} tuning", *counters, keep=True)
        grid = power_schedule(max(20, self.num_temperatures // 2), 2.0).tolist()
        with program.quiet(seed, f"{stream} tuned moves", *counters):
            tuning = tune(path, u[:TUNED], grid, self.leapfrog, self.target_acceptance)
        betas = tuning.schedule(self.num_temperatures)
        u, lw, strata = proposal.draws(num_chains, execution, stream, *counters, keep=True)
        pairs = budget_on(u.device, execution.budget) // (BACKWARD * bytes_per_pair(program))
        weights = []
        for block, part in enumerate(u.split(max(1, pairs // u.shape[1]))):
            with program.quiet(seed, f"{stream} moves", *counters, block):
                run = anneal(path, Point.at(path, part), betas, tuning.steps, self.leapfrog)
            weights.append(run.log_weights)
        # A draw without density is no chain.
        lw = torch.cat(weights).masked_fill(lw.isneginf(), -math.inf)[:, : len(proposal.indices)]
        check_weights(lw, proposal.indices, program)
        return replace(IS(num_chains).estimate(lw), variance=stratified_variance(lw, strata))


class _Path:
    """(base, slope) of ln q_n and ln p(x, z) - ln q_n, with their gradients."""

    def __init__(self, proposal: Proposal, shares: list[float]) -> None:
        self.proposal, self.shares = proposal, shares
        self.program: Program = proposal.program

    def __call__(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        proposal, program = self.proposal, self.program
        densities = Densities(program, proposal.indices, len(u))
        with program.quiet(grad=True), program.on(proposal.indices) as given:

            def terms(v: Tensor) -> Terms:
                found = densities.terms_given(v, given, proposal.has_guide)
                return replace(found, guide=proposal.log_density(v, found, self.shares))

            return differentiate(terms, u)
