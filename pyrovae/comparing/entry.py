"""A row of a comparison: a trained program under an objective, over its seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ..evidence import Estimate, Evidence
from ..evidence.core.paired import differences, is_directed
from ..training.logging.history import Row
from .seeds import OverSeeds, over_seeds


@dataclass(frozen=True)
class Entry:
    """A trained program and its evidence, as a row of the table and as what the pictures need.

    Attributes:
        name: of its run folder; "" for a cell of a grid, which its label names.
        label: what the table says of it, the objective last.
        evidences: by seed; None is the key of a seed that is not known.
        seconds: of training and evaluation; None where they are not known.
        histories: of the training of each seed; may be empty.
        folder: run folder of its first seed; None where there is none.
        either: an equal objective was asked for, too, and this one stands for both.
        lost: why a seed gave no result.
    """

    name: str
    label: tuple[str, ...]
    evidences: Mapping[int | None, Evidence] = field(repr=False)
    seconds: float | None
    histories: Mapping[int | None, list[Row]] = field(repr=False)
    folder: Path | None
    either: bool = False
    lost: Mapping[int, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """One string for legends and messages."""
        return self.name or " ".join(filter(None, self.label))

    @property
    def evidence(self) -> Evidence:
        """Evidence of the first seed."""
        return next(iter(self.evidences.values()))

    @property
    def history(self) -> list[Row]:
        """History of the first seed."""
        return next(iter(self.histories.values()))

    def estimates(self, name: str) -> list[Estimate]:
        """The estimates of this name, one a seed; those seeds whose program refuses it are left out."""
        return [ev.estimates[name] for ev in self.evidences.values() if name in ev.estimates]

    def figure(self, name: str) -> OverSeeds:
        """Mean of an estimator over seeds and data, with both errors; nats per datum."""
        found = self.estimates(name)
        # The errors of ln Z are not in that over the data, which a single evidence states without them, too.
        return over_seeds([e.per_datum for e in found])

    @property
    def names(self) -> list[str]:
        """Estimators that all seeds have."""
        return [n for n in self.evidence if all(n in ev.estimates for ev in self.evidences.values())]


@dataclass(frozen=True)
class Difference(OverSeeds):
    """Mean of first - second, paired over data, and over the seeds that both have; nats per datum.

    Attributes:
        estimator: whose figures are compared.
        directed: False where one is a bound: the difference of two lower bounds has no direction.
        among: number of programs, of which the second was chosen as the best.
        per_seed: mean of each seed; empty where there are no seeds in common.
        se_mc: Monte-Carlo error of the mean, as if all seeds had it in common.
    """

    estimator: str = ""
    directed: bool = False
    among: int = 1
    per_seed: tuple[float, ...] = ()
    se_mc: float = 0.0

    @property
    def behind(self) -> int:
        """Number of seeds in which the first is below the second."""
        return sum(value < 0 for value in self.per_seed)

    @property
    def order_stands(self) -> bool | None:
        """Whether the order stands on the spread over seeds, and on the draws.

        None where one seed (or none in common) cannot say.
        """
        return self.stands(self.among, self.se_mc) if self.per_seed else None

    def __repr__(self) -> str:
        seeds = "" if self.num_seeds < 2 else f" (data) ± {self.se_seeds:.4f} (seeds, S={self.num_seeds})"
        note = "" if self.directed else "; of two bounds: no direction"
        return (
            f"{self.mean:+.4f} ± {self.se_data:.4f}{seeds} nats per datum (paired, N={self.num_data}{note})"
        )


def difference(first: Entry, second: Entry, among: int = 1) -> Difference:
    """Paired difference of two entries, of the best estimator of the first among those that both have.

    Where the two have no seed in common, the means over the seeds of each are paired over the data alone, and the
    errors over seeds of both are put together.

    Args:
        first, second: entries.
        among: number of programs that the second was chosen from.

    Raises:
        ValueError: where the data differ, or one is a mass and the other a density.
    """
    seeds = [s for s in first.evidences if s in second.evidences and s is not None]
    if not seeds and len(first.evidences) == len(second.evidences) == 1:
        return _paired([(first.evidence, second.evidence)], among)
    if seeds:
        return _paired([(first.evidences[s], second.evidences[s]) for s in seeds], among)
    mine, theirs = first.evidence.paired(second.evidence)
    a, b = first.estimates(mine.name), second.estimates(theirs.name)
    sides = [over_seeds([e.per_datum for e in side]) for side in (a, b)]
    means = [torch.stack([e.per_datum.cpu() for e in side]).mean(0) for side in (a, b)]
    found = over_seeds([means[0] - means[1]])
    # Of a single seed the spread is not known, and then neither is that of the difference.
    spread = torch.tensor([s.se_seeds for s in sides], device="cpu").norm().item()
    return Difference(
        found.mean,
        found.se_data,
        spread,
        1,
        found.num_data,
        mine.name,
        is_directed(mine, theirs),
        among,
    )


def _paired(evidences: Sequence[tuple[Evidence, Evidence]], among: int) -> Difference:
    """Difference over seeds, of one estimator for all of them."""
    pairs = [a.paired(b) for a, b in evidences]
    chosen = {(a.name, b.name) for a, b in pairs}
    shared = [(m, t) for m, t in chosen if all(m in a and t in b for a, b in evidences)]
    if len(chosen) > 1 and shared:  # the best of one seed is not that of another
        mine, theirs = max(shared, key=lambda names: sum(a[names[0]].log_evidence for a, _ in evidences))
        pairs = [(a[mine], b[theirs]) for a, b in evidences]
    per_seed = [differences(a, b) for a, b in pairs]
    found = over_seeds(per_seed, [e.shared_error for pair in pairs for e in pair])
    return Difference(
        found.mean,
        found.se_data,
        found.sd_seeds,
        found.num_seeds,
        found.num_data,
        pairs[0][0].name,
        all(is_directed(*pair) for pair in pairs),
        among,
        tuple(float(d.mean()) for d in per_seed),
        sum(math.hypot(a.se_mc, b.se_mc) for a, b in pairs) / len(pairs),
    )
