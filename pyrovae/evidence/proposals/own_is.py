"""Importance sampling from proposals of each datum's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import torch

from ...programs import Program
from ..core.checks import check_num_samples
from ..core.estimate import OWN
from ..core.estimator import PerDatum
from ..core.execution import Execution
from .fitting import FittedEstimator, Fitter, ProposalFit

LEAST = 100  # draws, so that guide and prior have some


@dataclass(frozen=True)
class OwnIS(FittedEstimator):
    """ln p(x) >= E ln (1/K) sum_k p(x, z_k) / q_n(z_k), z_k ~ q_n, a proposal of this datum's own.

    Amortised guides lose nats on single data, and their weights are too uneven for more than a lower bound. A proposal
    fitted to the datum itself makes them even. It is held fixed before the draws that are counted: exp of the
    estimate is unbiased for p(x), the certificate holds, and diagnostics are those of fresh draws. See `ProposalFit`
    for how it is fitted. Works in unconstrained space, for continuous latents of up to 512 dims in all.
    https://arxiv.org/abs/1509.00519 (L_K), https://arxiv.org/abs/1801.03558 (guides of one's own).

    Args:
        num_samples: K.
        fit: of the proposals.

    Raises:
        ValueError: K < 100, of which too few would be left for guide and prior.

    Example:
        >>> OwnIS(5000).num_samples
        5000
    """

    num_samples: int = 20_000
    fit: ProposalFit = field(default_factory=ProposalFit)

    def __post_init__(self) -> None:
        check_num_samples(self.num_samples)
        self.check_fit()
        if self.num_samples < LEAST:
            raise ValueError(f"expected num_samples (K) >= {LEAST} for own proposals, got {self.num_samples}")

    @property
    def name(self) -> str:
        """Key in the results."""
        return "OwnIS"

    def run_chunks(
        self, program: Program, numbers: Iterable[int], execution: Execution
    ) -> Iterator[tuple[int, PerDatum]]:
        """Number and result of some chunks; progress is in gradients and draws.

        Raises:
            ValueError: as `chunks`.
        """
        chunks = self.chunks(program, execution.budget)
        steps = self.fit.steps + self.num_samples
        total, done = steps * program.arguments.num_data, 0
        fitter = Fitter(program, self.fit, execution, len(chunks[0]))

        def advance(count: int) -> None:
            nonlocal done
            done += count
            execution.tell(done, total)

        for i in numbers:
            n = len(chunks[i])
            proposal = fitter(chunks[i], i, lambda: advance(n))  # noqa: B023
            part = proposal.estimate(self.num_samples, execution, "own draws", i, advance=advance)
            yield i, replace(part, details={**part.details, OWN: torch.ones(n, device="cpu")})
