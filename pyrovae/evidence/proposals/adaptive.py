"""An estimator asked for by accuracy: draws and proposals go where the weights need them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...programs import Program
from ..core.estimate import ANNEALED, NUM_DRAWS, OWN
from ..core.estimator import PerDatum, join
from ..core.execution import Execution
from ..weights.diagnostics import MIN_ESS
from .annealing import Annealing
from .fitting import FittedEstimator, Fitter, ProposalFit
from .proposal import Proposal

LEVELS = (5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000)  # draws
PILOT = 5_000  # draws per datum that a decision is made on
CHAINS = 200  # of the pilot of annealing
CHEAP = 20_000  # draws of the guide that cost less than a proposal of the datum's own
MARGIN = 4.0  # of the draws asked for over those that the pilot says suffice: it is itself a draw
SIGMAS = 5.0  # by which a tail is to exclude an infinite mean (`tail.TAIL_SIGMAS` is 3.5)
AMORTISED_PRIOR = 0.1  # share of the prior's draws beside the guide's
Way = Literal["guide", "own"]


@dataclass(frozen=True)
class Adaptive(FittedEstimator):
    """ln p(x_n) within `tolerance` for every datum, where `max_samples` draws per datum allow it.

    1. A pilot of the guide's draws, a tenth of them the prior's, tells how many a datum needs: for a Monte-Carlo
       standard error below the tolerance, for an effective sample size, and for a tail that excludes an infinite mean.
       Where few do, they are drawn.
    2. All other data get proposals of their own (`OwnIS`), a pilot of these, and as many draws as it says.
    3. Where that is more than `max_samples`, chains are annealed from the proposal to the posterior (`Annealing`), if
       a pilot of these comes closer to what is needed, or has the higher bound.

    Every decision rests on pilots, and every figure on fresh draws of a proposal that is fixed before them: exp of the
    estimate is unbiased for p(x), whichever way a datum goes, and the certificate holds. `Estimate.reliable` tells of
    these draws which data are supported; what is not is a lower bound still.

    Details per datum: `own_proposal` (1, or 0: the guide's draws), `annealed` (1 or 0) and `num_draws`.

    Args:
        tolerance: largest Monte-Carlo standard error of a datum, nats.
        max_samples: most draws per datum.
        fit: of the proposals.
        annealing: of the data that `max_samples` draws would not support; None: these stay lower bounds.

    Raises:
        ValueError: tolerance <= 0, fewer draws than a pilot takes.

    Example:
        >>> Adaptive(tolerance=0.1).max_samples
        100000
    """

    num_samples: ClassVar[None] = None

    tolerance: float = 0.05
    max_samples: int = 100_000
    fit: ProposalFit = field(default_factory=ProposalFit)
    annealing: Annealing | None = field(default_factory=Annealing)

    def __post_init__(self) -> None:
        number = isinstance(self.tolerance, int | float) and not isinstance(self.tolerance, bool)
        if not number or not 0 < self.tolerance < math.inf:
            raise ValueError(f"expected a tolerance > 0 in nats, got {self.tolerance!r}")
        self.check_fit()
        if self.annealing is not None and not isinstance(self.annealing, Annealing):
            raise TypeError(f"expected annealing to be a pv.Annealing or None, got {self.annealing!r}")
        if not isinstance(self.max_samples, int) or self.max_samples < PILOT:
            raise ValueError(
                f"expected max_samples to be a whole number >= {PILOT:,}, which a pilot takes, got {self.max_samples}"
            )

    @property
    def name(self) -> str:
        """Key in the results."""
        return "Adaptive"

    def run_chunks(
        self, program: Program, numbers: Iterable[int], execution: Execution
    ) -> Iterator[tuple[int, PerDatum]]:
        """Number and result of some chunks; progress is in data.

        Raises:
            ValueError: as `chunks`.
        """
        chunks = self.chunks(program, execution.budget)
        fitter = Fitter(program, self.fit, execution, len(chunks[0]))
        done = 0
        for i in numbers:
            yield i, self._result(program, chunks[i], i, fitter, execution)
            done += len(chunks[i])
            execution.tell(done, program.arguments.num_data)

    def _result(
        self, program: Program, indices: Tensor, chunk: int, fitter: Fitter, execution: Execution
    ) -> PerDatum:
        amortised = Proposal(program, indices, [], 1 - AMORTISED_PRIOR, AMORTISED_PRIOR)
        easy = torch.zeros(len(indices), dtype=torch.bool, device="cpu")
        found = []
        together = program.arguments.calling != "sliced"  # runs on all of its data alone
        if amortised.has_guide:
            needed, _ = self._needed(amortised, "guide", chunk, execution)
            easy = needed <= CHEAP
            if together:
                easy = easy.all().expand_as(easy)
            found += self._drawn(amortised, "guide", needed, easy, chunk, execution)
        if not bool(easy.all()):
            rest = (~easy).nonzero()[:, 0]
            own = fitter(indices[rest.to(indices.device)], chunk)
            needed, bound = self._needed(own, "own", chunk, execution)
            hard = needed > self.max_samples
            if together:
                hard = hard.any().expand_as(hard)
            rows, parts = self._annealed(own, needed, bound, hard, chunk, execution)
            drawn = torch.ones_like(hard).index_fill(0, rows, False)
            found += [(rest[i], part) for i, part in self._drawn(own, "own", needed, drawn, chunk, execution)]
            found += [(rest[i], part) for i, part in parts]
        order = torch.cat([rows for rows, _ in found]).argsort()
        return join([part for _, part in found], order)

    def _annealed(
        self, own: Proposal, needed: Tensor, bound: Tensor, hard: Tensor, chunk: int, execution: Execution
    ) -> tuple[Tensor, list[tuple[Tensor, PerDatum]]]:
        """Rows that annealing serves better than draws of their proposals, and their results.

        It does where a pilot of it comes closer to what is needed, or has the higher lower bound.
        """
        rows = hard.nonzero()[:, 0]
        if self.annealing is None or not len(rows):
            return rows[:0], []
        anneal, most = self.annealing, max(self.annealing.num_chains, own.fewest)
        some = own if len(rows) == len(hard) else own.select(rows)
        few = min(most, max(CHAINS, own.fewest))
        pilot = anneal.estimate(some, few, execution, "adaptive anneal pilot", chunk)
        chains = draws_needed(pilot, few, self.tolerance)
        higher = pilot.log_evidence.cpu() - bound[rows] > 2 * pilot.variance.cpu().sqrt()
        closer = chains.isfinite() & (chains / most <= needed[rows] / self.max_samples)
        better = closer | higher
        if own.program.arguments.calling != "sliced":
            better = better.all().expand_as(better)
        where = better.nonzero()[:, 0]
        if not len(where):
            return rows[:0], []
        some = some if len(where) == len(rows) else some.select(where)
        part = anneal.estimate(some, most, execution, "adaptive anneal", chunk)
        return rows[where], [(rows[where], self._told(part, "own", most, annealed=True))]

    def _told(self, part: PerDatum, way: Way, number: int, annealed: bool = False) -> PerDatum:
        """The result with what it says of the way it was found."""
        n = len(part.log_evidence)
        own, chains, draws = (
            torch.full((n,), float(v), device="cpu") for v in (way == "own", annealed, number)
        )
        details = {OWN: own, ANNEALED: chains, NUM_DRAWS: draws, "tolerance": self.tolerance}
        return replace(part, curve={}, details={**part.details, **details})

    def _needed(
        self, proposal: Proposal, way: Way, chunk: int, execution: Execution
    ) -> tuple[Tensor, Tensor]:
        """Draws that each datum needs, and ln p̂ of the pilot that says so."""
        pilot = proposal.estimate(PILOT, execution, f"adaptive {way} pilot", chunk)
        return draws_needed(pilot, PILOT, self.tolerance), pilot.log_evidence.cpu()

    def _drawn(
        self, proposal: Proposal, way: Way, needed: Tensor, wanted: Tensor, chunk: int, execution: Execution
    ) -> list[tuple[Tensor, PerDatum]]:
        """Fresh draws of the data wanted, as many as each needs: their rows, and their results."""
        levels = [*(level for level in LEVELS if level < self.max_samples), self.max_samples]
        steps = torch.searchsorted(torch.tensor(levels, dtype=needed.dtype, device="cpu"), needed).clamp(
            max=len(levels) - 1
        )
        if proposal.program.arguments.calling != "sliced":
            steps = steps.max().expand_as(steps)
        found = []
        for step, level in enumerate(levels):
            rows = ((steps == step) & wanted).nonzero()[:, 0]
            if len(rows):
                some = proposal if len(rows) == len(steps) else proposal.select(rows)
                part = some.estimate(level, execution, f"adaptive {way} draws", chunk, step)
                found.append((rows, self._told(part, way, level)))
        return found


def draws_needed(pilot: PerDatum, num_samples: int, tolerance: float) -> Tensor:
    """Draws with which weights such as a pilot's support their datum, `[n]`; infinite where none do.

    With variance v, rate r = ESS / K and Pareto index k of the pilot's K draws: 4 v K / tolerance^2 for the error,
    4 x 200 / r for the effective sample size, and a tail of (5 (1 + k) / (1 - k))^2 draws, since k of a fit to m draws
    has the error (1 + k) / sqrt(m).
    """
    assert pilot.ess is not None and pilot.khat is not None
    rate = pilot.ess.cpu() / num_samples
    error = MARGIN * pilot.variance.cpu() * num_samples / tolerance**2
    khat = pilot.khat.cpu().clamp(min=0.0)
    tail = (SIGMAS * (1 + khat) / (1 - khat)).square()
    tail = torch.where(khat < 1, torch.maximum(5 * tail, (tail / 3).square()), torch.inf)
    needed = torch.maximum(torch.maximum(error, MARGIN * MIN_ESS / rate), tail)
    equal = pilot.khat.cpu() == -torch.inf
    return torch.where(equal, error, needed).nan_to_num(nan=torch.inf, posinf=torch.inf)
