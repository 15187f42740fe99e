"""Contrastive divergence: negative phases from short chains, begun at the data or kept from step to step."""

from __future__ import annotations

from torch import Tensor

from ..programs import AnnealedFamily
from .phases import PhaseObjective, _whole


class ContrastiveDivergence(PhaseObjective):
    """CD-k: the negative phase is k transitions away from the data batch itself (Hinton 2002).

    A biased gradient, of no function; good reconstructions, less good likelihoods. For the arguments, what is
    logged and errors see `PhaseObjective`.

    Source:
        Training products of experts by minimizing contrastive divergence, https://doi.org/10.1162/089976602760128018
    """

    def negative(self, family: AnnealedFamily, x: Tensor) -> Tensor:
        """k transitions from the data."""
        return family.transition(x, self.steps)


class PersistentCD(PhaseObjective):
    """PCD-k: chains that go on from step to step while the weights change under them (Tieleman 2008).

    With a learning rate that falls to 0 the chains keep up, and the gradient becomes that of the likelihood
    (Younes 1999); average the weights with `pv.fit(ema=...)`. The chains begin at the start of the annealing (the base
    rates of an `RBM.initialised_to` data) and are part of checkpoints.

    Args:
        steps: k, transitions a step.
        num_chains: of them.
        exact: as in `PhaseObjective`.

    Raises:
        ValueError: steps or num_chains < 1.

    Source:
        Training restricted Boltzmann machines using approximations to the likelihood gradient,
        https://doi.org/10.1145/1390156.1390290
    """

    def __init__(self, steps: int = 1, num_chains: int = 100, *, exact: bool = False) -> None:
        _whole(type(self).__name__, "num_chains", num_chains)
        self.num_chains = num_chains
        super().__init__(steps, exact=exact)

    def negative(self, family: AnnealedFamily, x: Tensor) -> Tensor:
        """k transitions from where the chains are."""
        if self._chains is None:
            self._chains = family.start(self.num_chains).to(x)
        self._chains = family.transition(self._chains.to(x), self.steps)
        return self._chains
