"""Cells run side by side, and put together into one result."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from ..data import Dataset
from .cell import Cell, CellResult
from .entry import Entry
from .plan import Plan
from .running import run_cell
from .table import Without
from .workers import Failure, plain_reason, run_side_by_side


@dataclass(frozen=True)
class Outcome:
    """Results of the cells of a plan.

    Attributes:
        cells: all of them, in the order of the table.
        plan: which of them ran.
        results: of those that gave one.
        failed: why others gave none.
    """

    cells: Sequence[Cell]
    plan: Plan
    results: dict[Cell, CellResult] = field(default_factory=dict)
    failed: dict[Cell, str] = field(default_factory=dict)

    def rows(self) -> list[Entry | Without]:
        """One row a label, over its seeds, in the order of the cells; those that another stands for have none."""
        groups: dict[tuple[str, ...], list[Cell]] = {}
        for cell in self.cells:
            groups.setdefault(cell.label, []).append(cell)
        found = [self._row(label, cells) for label, cells in groups.items()]
        return [row for row in found if row is not None]

    def _row(self, label: tuple[str, ...], cells: list[Cell]) -> Entry | Without | None:
        done = {c.seed: self.results[c] for c in cells if c in self.results}
        reasons = {c: self.failed.get(c, self.plan.refused.get(c)) for c in cells}
        lost = {c.seed: why for c, why in reasons.items() if why is not None}
        if done:
            first = next(c for c in cells if c in self.results)
            stands = set(self.plan.same.values())
            return Entry(
                "",
                label,
                {seed: r.evidence for seed, r in done.items()},
                sum(r.seconds for r in done.values()),
                {seed: r.history for seed, r in done.items()},
                first.out,
                any(c in stands for c in cells),
                lost,
            )
        for word, known in (("refused", self.plan.refused), ("failed", self.failed)):
            why = next((known[c] for c in cells if c in known), None)
            if why is not None:
                return Without(label, word, why)
        return None

    @property
    def unwritten(self) -> list[str]:
        """Why files of cells could not be written."""
        return [text for r in self.results.values() for text in r.unwritten]


def run_plan(
    cells: Sequence[Cell],
    plan: Plan,
    load: Callable[[], Dataset],
    *,
    jobs: int = 1,
    threads: int = 1,
    reason: Callable[[BaseException], str] = plain_reason,
    on_cell: Callable[[Cell, CellResult | Failure], None] | None = None,
) -> Outcome:
    """Runs the cells of a plan, `jobs` at a time; one that fails is one row without figures.

    Args:
        cells: all cells, in the order of the table.
        plan: of them.
        load: gives the data, in each process.
        jobs, threads, reason: as of `run_side_by_side`.
        on_cell: called with each cell as it ends.

    Raises:
        NotStarted: as `run_side_by_side`.
    """
    outcome = Outcome(cells, plan)
    jobs = max(1, min(jobs, len(plan.cells)))
    work = functools.partial(run_cell, load=load, sends=jobs > 1)
    with closing(run_side_by_side(work, plan.cells, jobs, threads, reason)) as running:
        for cell, result in running:
            if isinstance(result, Failure):
                outcome.failed[cell] = result.reason
            else:
                outcome.results[cell] = result
            if on_cell is not None:
                on_cell(cell, result)
    return outcome
