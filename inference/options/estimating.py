"""Building of estimators of the evidence from option names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import pyrovae as pv

EstimatorName = Literal[
    "elbo",
    "closed-elbo",
    "is",
    "defensive-is",
    "own-is",
    "adaptive",
    "jackknife",
    "mlmc",
    "ais",
    "smc",
    "exact",
    "normalised",
]


@dataclass(frozen=True)
class EstimatorOptions:
    """Estimators of the evidence, and what each of them takes."""

    estimators: tuple[EstimatorName, ...] = ("elbo", "is")
    """elbo, is, jackknife (these share their draws), closed-elbo (its KL in closed form, at most 1000 draws),
    defensive-is, own-is (proposals fitted to each datum), adaptive (as many draws, of proposals of the datum's own
    where it takes them, as the tolerance asks for), mlmc, ais, smc (the same with resampling), exact (declared,
    enumerated or by quadrature), normalised (a Boltzmann machine by ln Z of AIS). Default of a Boltzmann machine:
    exact where it is small, else normalised; of a diffusion in continuous time: elbo, 100 draws."""
    num_samples: int = 5000
    """Importance samples K per datum, of elbo, is, own-is and jackknife."""
    tolerance: float = 0.05
    """Largest Monte-Carlo standard error of a datum in adaptive, nats."""
    max_samples: int = 100_000
    """Most draws per datum of adaptive."""
    defensive: float = 0.1
    """Share of the prior's draws in defensive-is."""
    replicates: int = 64
    """Independent replicates per datum of mlmc."""
    temperatures: int = 500
    """Temperatures of ais and smc, both ends counted."""
    chains: int = 16
    """Chains per datum of ais; of smc, in each of its 8 islands."""
    start: Literal["guide", "prior"] = "guide"
    """Start of the chains of ais and smc."""
    leapfrog: int = 8
    """Leapfrog steps of one move of ais and smc."""

    partition_temperatures: int = 10_000
    """Temperatures of normalised, both ends counted."""
    partition_chains: int = 100
    """Chains of normalised."""

    def build(self) -> list[Any]:
        """The estimators, in the order asked for.

        Raises:
            ValueError: none, one twice, or an option out of its range.
        """
        if not self.estimators or len(set(self.estimators)) < len(self.estimators):
            raise ValueError(
                f"expected --estimators to name each estimator once, got {' '.join(self.estimators) or 'none'}"
            )
        makers: dict[EstimatorName, Any] = {
            "elbo": lambda: pv.ELBO(self.num_samples),
            "closed-elbo": lambda: pv.ClosedELBO(min(self.num_samples, 1000)),
            "is": lambda: pv.IS(self.num_samples),
            "defensive-is": lambda: pv.IS(self.num_samples, defensive=self.defensive),
            "own-is": lambda: pv.OwnIS(self.num_samples),
            "adaptive": lambda: pv.Adaptive(self.tolerance, self.max_samples),
            "jackknife": lambda: pv.Jackknife(self.num_samples),
            "mlmc": lambda: pv.MLMC(replicates=self.replicates),
            "ais": lambda: pv.AIS(self.temperatures, self.chains, self.start, self.leapfrog),
            "smc": lambda: pv.SMC(
                self.temperatures, 8 * self.chains, start=self.start, leapfrog=self.leapfrog
            ),
            "exact": pv.Exact,
            "normalised": lambda: pv.Normalised(
                betas=self.partition_temperatures, num_chains=self.partition_chains
            ),
        }
        return [makers[name]() for name in self.estimators]


def shard_of(text: str | None) -> tuple[int, int] | None:
    """`i/n` as `(i, n)`.

    Raises:
        ValueError: for text of another form, or i outside of 0..n-1.
    """
    if text is None:
        return None
    first, slash, second = text.partition("/")
    if not (slash and first.isdecimal() and second.isdecimal() and int(first) < int(second)):
        raise ValueError(f"expected --shard i/n with 0 <= i < n, got {text!r}; try --shard 0/4")
    return int(first), int(second)
