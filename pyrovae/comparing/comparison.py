"""The result of `pv.compare`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..data import Dataset
from ..evidence import Evidence
from ..runs import Run
from ..training import Fit
from ..training.logging.history import Row
from .cell import Cell, CellResult, Weights
from .columns import best_of
from .driver import Outcome
from .entry import Difference, Entry, difference
from .frame import frame_of
from .rendering import STYLES, notebook, write_report
from .running import load_cell, revived
from .seeds import OverSeeds
from .table import GRID, Table, Without, comparison_table


@dataclass(frozen=True)
class Compared:
    """A program under an objective, over its seeds; `at(seed)` is one cell of it.

    Attributes:
        entry: its figures.
        results: of its cells, by seed.
    """

    entry: Entry
    results: dict[int, tuple[Cell, CellResult]] = field(repr=False)
    data: Dataset = field(repr=False)

    @property
    def name(self) -> str:
        """Program and objective."""
        return self.entry.title

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds that gave a result."""
        return tuple(self.results)

    def at(self, seed: int) -> Compared:
        """The cell of one seed.

        Raises:
            KeyError: a seed without a result.
        """
        if seed not in self.results:
            lost = self.entry.lost.get(seed)
            raise KeyError(
                f"expected one of the seeds {self.seeds}, got {seed!r}" + (f": {lost}" if lost else "")
            )
        cell, result = self.results[seed]
        entry = Entry(
            "", self.entry.label, {seed: result.evidence}, result.seconds, {seed: result.history}, cell.out
        )
        return Compared(entry, {seed: (cell, result)}, self.data)

    @property
    def seed(self) -> int:
        """The seed of a single cell; ValueError where there are several."""
        return self._single()[0].seed

    @property
    def evidence(self) -> Evidence:
        """The evidence of a single cell; ValueError where there are several seeds."""
        return self._single()[1].evidence

    @property
    def history(self) -> list[Row]:
        """The history of a single cell's training; ValueError where there are several seeds."""
        return self._single()[1].history

    @cached_property
    def fit(self) -> Fit | Run:
        """The trained program of a single cell: the fit, or the run in its folder; ValueError for several seeds."""
        cell, result = self._single()
        if isinstance(result.trained, Weights):
            return revived(cell, result.trained, self.data)
        return result.trained if result.trained is not None else load_cell(cell, self.data)

    def figure(self, estimator: str) -> OverSeeds:
        """Mean of an estimator over data and seeds, with both errors, in nats per datum.

        Raises:
            KeyError: an estimator that not all seeds have.
        """
        if estimator not in self.entry.names:
            raise KeyError(f"expected one of {self.entry.names}, got {estimator!r}")
        return self.entry.figure(estimator)

    def _single(self) -> tuple[Cell, CellResult]:
        if len(self.results) != 1:
            raise ValueError(
                f"expected one seed, got {self.seeds} of {self.name}; try result[{self.name!r}, {self.seeds[0]}]"
            )
        return next(iter(self.results.values()))


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Programs x objectives x seeds, trained and evaluated on the same data; of `pv.compare`.

    `result["name"]` is a program, `result["name", seed]` a cell of it: with `.fit` (or the run), `.evidence`,
    `.history`, `.seed`. Where several objectives were compared, names have theirs: `result["vamp iwae"]`.

    Attributes:
        outcome: what came of each cell.
        data: that they were trained and evaluated on.
        heads: of the table, for the parts of a label.
        remarks: what else is to be said, below the table.

    Example:
        >>> result = pv.compare({"a": build_a, "b": build_b}, data, seeds=3)  # doctest: +SKIP
        >>> result.best.name, result["a", 0].evidence["IS"].interval()  # doctest: +SKIP
    """

    outcome: Outcome
    data: Dataset
    heads: tuple[str, ...] = GRID
    remarks: tuple[str, ...] = ()

    @cached_property
    def rows(self) -> list[Entry | Without]:
        """Rows of the table, with figures or without."""
        return self.outcome.rows()

    @property
    def entries(self) -> list[Entry]:
        """Rows with figures."""
        return [row for row in self.rows if isinstance(row, Entry)]

    @property
    def failed(self) -> dict[str, str]:
        """Programs without figures, and why: refused, or failed."""
        return {row.title: row.reason for row in self.rows if isinstance(row, Without)}

    @property
    def best(self) -> Compared:
        """The program with the highest mean over data and seeds; chosen after the fact.

        Raises:
            ValueError: none has figures.
        """
        return self._compared(best_of(self._entries()))

    def __getitem__(self, key: str | tuple[str, int]) -> Compared:
        name, seed = key if isinstance(key, tuple) else (key, None)
        found = self._compared(self._entry(name))
        return found if seed is None else found.at(seed)

    def __iter__(self) -> Iterator[str]:
        return (entry.title for entry in self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def differences(self) -> dict[str, Difference]:
        """Paired difference of each program to the best, by name: over data, and over seeds; nats per datum."""
        entries = self._entries()
        best = best_of(entries)
        return {e.title: difference(e, best, len(entries)) for e in entries if e is not best}

    def difference(self, first: str, second: str) -> Difference:
        """Paired difference first - second of two programs that were named before the figures were seen."""
        return difference(self._entry(first), self._entry(second))

    @property
    def warnings(self) -> list[str]:
        """Warnings of each program's evidence on its own figures, with the program's name and seed before them."""
        return [
            f"{e.title}{f' (seed {seed})' if len(e.evidences) > 1 else ''}: {warning}"
            for e in self.entries
            for seed, ev in e.evidences.items()
            for warning in ev.warnings
        ]

    def table(self, style: str = "terminal") -> str:
        """One row a program; `"terminal"`, `"markdown"` or `"latex"` (package booktabs).

        Raises:
            ValueError: another style.
        """
        if style not in STYLES:
            raise ValueError(f"expected style to be one of {', '.join(map(repr, STYLES))}, got {style!r}")
        return STYLES[style](self._table(), self.title)

    @property
    def title(self) -> str:
        """Data, split and draws that the figures are of."""
        draws = next((e.num_samples for e in self.outcome.cells[0].estimators if e.name == "IS"), None)
        return self.data.spec.heading("test", len(self.data.test), draws)

    def plot(self) -> Any:
        """A figure: each program's difference to the best, with both errors and a point for each seed."""
        from ..plots import plot_differences

        return plot_differences(self.differences, self.best.name).figure

    def to_dataframe(self) -> Any:
        """`pandas.DataFrame`, one row a cell and estimator: program, seed, figure, errors, seconds."""
        return frame_of(self.entries, self.heads)

    def report(self, path: str | os.PathLike[str]) -> Path:
        """Writes one HTML page, without network or scripts; see `write_report`, which says what it raises."""
        return write_report(
            path, self.outcome.cells, self.data, self._entries(), self._repr_html_(), self.plot
        )

    def _repr_html_(self) -> str:
        return notebook(self._table(), self.title, self.warnings)

    def __repr__(self) -> str:
        return self.table()

    def _table(self) -> Table:
        table = comparison_table(self.rows, heads=self.heads)
        table.notes.extend(self.remarks)
        return table

    def _entries(self) -> list[Entry]:
        if not self.entries:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.failed.items())
            raise ValueError(f"expected a program with figures, got none: {reasons}")
        return self.entries

    def _entry(self, name: str) -> Entry:
        """The entry of this name; without its objective, where that is enough to tell."""
        if name in self.failed:
            raise KeyError(f"expected a program with figures, got {name}: {self.failed[name]}")
        name = {c.title: t.title for c, t in self.outcome.plan.same.items()}.get(name, name)
        found = [e for e in self.entries if e.title == name]
        found = found or [e for e in self.entries if " ".join(filter(None, e.label[:-1])) == name]
        if len(found) != 1:
            raise KeyError(f"expected one of {[e.title for e in self.entries]}, got {name!r}")
        return found[0]

    def _compared(self, entry: Entry) -> Compared:
        cells = {c.seed: (c, r) for c, r in self.outcome.results.items() if c.label == entry.label}
        return Compared(entry, {s: cells[s] for s in entry.evidences if s is not None}, self.data)
