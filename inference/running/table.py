"""The comparison table: one row a fit, paired differences to the best or to a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import rich.table
from rich.console import Console

from pyrovae.evidence import Evidence
from pyrovae.evidence.weights.diagnostics import khat_threshold
from pyrovae.programs import check_alike
from pyrovae.text import visible
from pyrovae.training.logging.history import Row

from .grid import Cell, CellResult, Plan
from .markdown import table_lines
from .running import console

COLUMNS = (
    "prior",
    "guide",
    "objective",
    "test ELBO ± se",
    "IS evidence ± se",
    "certified ≥",
    "gap",
    "median ESS",
    "k̂ high",
    "Δ to best ± se",
    "seconds",
)
OWN_COLUMNS = ("ln p(x) ± MC", "supported")  # before the differences, where a row has them
WIDTH = 200
WORDS = ("run", "prior", "guide", "objective")  # columns of text


@dataclass(frozen=True)
class Entry:
    """A trained program and its evidence, as a row of the table and as what the pictures need.

    Attributes:
        name: of its run folder; "" for a cell of a grid, which its label names.
        label: (prior, guide, objective).
        evidence: with ELBO and IS.
        seconds: of training and evaluation; None where they are not known.
        history: of its training; may be empty.
        folder: its run folder.
    """

    name: str
    label: tuple[str, str, str]
    evidence: Evidence = field(repr=False)
    seconds: float | None
    history: list[Row] = field(repr=False)
    folder: Path

    @property
    def title(self) -> str:
        """One string for legends and messages."""
        return self.name or " ".join(filter(None, self.label))


@dataclass(frozen=True)
class Table:
    """Rows of text, and notes below."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: list[str]


def entry_of(result: CellResult) -> Entry:
    """A grid's result as an entry."""
    cell = result.cell
    return Entry("", cell.label, result.evidence, result.seconds, result.history, cell.out)


def runs_table(entries: Sequence[Entry], split: str, baseline: Entry | None = None) -> Table:
    """One row a run folder; differences to `baseline`, or to the best, are paired over the data.

    Raises:
        ValueError: masses and densities together.
    """
    label = _label(entries)
    target = baseline or _best(entries)
    rows = [
        (e.name, *e.label, *_figures(e, target, "best" if baseline is None else "baseline", _own(entries)))
        for e in entries
    ]
    columns = _columns(split, label, _own(entries), None if baseline is None else baseline.name)
    pairs = [(e.title, e.evidence.compare(target.evidence)) for e in entries if e is not target]
    wide = [f"{title}: {warning}" for title, c in pairs for warning in c.warnings]
    return Table(("run", *columns), rows, [_note(target, baseline is None, len(entries)), *wide])


def comparison_table(
    cells: list[Cell],
    plan: Plan,
    results: dict[Cell, CellResult],
    others: Sequence[Entry] = (),
    failed: Mapping[Cell, str] = {},
) -> Table:
    """Rows in the grid's order, then those of run folders; differences are paired over the test data.

    Raises:
        ValueError: no entry; masses and densities together.
    """
    entries: Mapping[Cell, Entry] = {cell: entry_of(r) for cell, r in results.items()}
    if not entries and not others and not failed:
        raise ValueError(
            "expected an objective that is valid for a program, got: " + "; ".join(plan.refused.values())
        )
    ranked = [*entries.values(), *others]
    own = _own(ranked)
    columns = _columns("test", _label(ranked), own)
    best = _best(ranked) if ranked else None
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    for cell in cells:
        prior, guide, objective = cell.label
        if cell in plan.same:
            continue
        for word, reasons in (("refused", plan.refused), ("failed", failed)):
            if cell in reasons:
                rows.append((prior, guide, objective, word, *("–",) * (len(columns) - 4)))
                notes.append(f"{cell.title} {word}: {reasons[cell]}")
        if cell in plan.refused or cell in failed:
            continue
        assert best is not None
        shown = "either" if cell in plan.same.values() else objective
        rows.append((prior, guide, shown, *_figures(entries[cell], best, own=own)))
    if plan.same:
        notes.append(
            "either: the KL has no closed form there, so trace-elbo and mean-field are the same estimator with "
            "the same noise, and run once."
        )
    if best is not None:
        notes.append(_note(best, True, len(ranked)))
    if not others or best is None:
        return Table(columns, rows, notes)
    rows = [("grid", *row) for row in rows]
    rows += [(e.name, *e.label, *_figures(e, best, own=own)) for e in others]
    return Table(("run", *columns), rows, notes)


def _best(entries: Sequence[Entry]) -> Entry:
    return max(entries, key=lambda e: (e.evidence.get("Adaptive") or e.evidence["IS"]).log_evidence)


def _label(entries: Sequence[Entry]) -> str:
    """Unit behind the name of a figure that is a density."""
    measures = [(e.title, e.evidence.measure) for e in entries]
    check_alike(measures)
    return next((m.label for _, m in measures if m is not None), "")


def _own(entries: Sequence[Entry]) -> bool:
    """Whether proposals of the data's own were asked for."""
    return any("Adaptive" in e.evidence for e in entries)


def _columns(split: str, label: str, own: bool, baseline: str | None = None) -> tuple[str, ...]:
    words = {"test ELBO ± se": f"{split} ELBO ± se{label}", "IS evidence ± se": f"IS evidence ± se{label}"}
    if baseline is not None:
        words["Δ to best ± se"] = "Δ to baseline ± se"
    words["ln p(x) ± MC"] = f"ln p(x) ± MC{label}"
    *figures, difference, seconds = COLUMNS
    columns = (*figures, *(OWN_COLUMNS if own else ()), difference, seconds)
    return tuple(words.get(c, c) for c in columns)


def _note(target: Entry, best: bool, number: int) -> str:
    """The certificate of the best is one among `number`, chosen after the fact; that of a baseline is its own."""
    e = target.evidence["IS"]
    which = "the best" if best else f"the baseline, {target.title}"
    certified = ""
    value = e.certificate_among(number if best else 1)
    if value is not None:
        sure = f"with probability {1 - e.delta:.0%}"
        chosen = f", chosen among {number}" if best and number > 1 else ""
        certified = (
            f"; the certificate of {which}{chosen}: mean ln p(x) ≥ {value:.3f} {sure} (a row's is its own)"
        )
    return (
        f"IS evidence is a lower bound on ln p(x) (≥), its error is over the data{certified}. "
        "Differences of two lower bounds show the order, not the exact distance."
    )


def _figures(entry: Entry, target: Entry, word: str = "best", own: bool = False) -> tuple[str, ...]:
    ev = entry.evidence
    elbo, weights = ev["ELBO"], ev["IS"]
    assert weights.ess is not None and weights.khat is not None
    known = weights.khat[~weights.khat.isnan()]  # none where K < 25
    high = (
        f"{float((known > khat_threshold(weights.num_samples)).double().mean()):.0%}" if len(known) else "–"
    )
    if entry is target:
        difference = word
    else:
        paired = ev.compare(target.evidence)
        difference = f"{paired.difference:+.3f} ± {paired.se:.3f}"
    return (
        f"{elbo.log_evidence:.3f} ± {elbo.se_data:.3f}",
        f"{weights.log_evidence:.3f} ± {weights.se_data:.3f}",
        "–" if weights.certificate is None else f"{weights.certificate:.3f}",
        f"{ev.gap:.3f}",
        f"{float(weights.ess.median()):.0f}",
        high,
        *(_supported(ev) if own else ()),
        difference,
        "–" if entry.seconds is None else f"{entry.seconds:.0f}",
    )


def _supported(ev: Evidence) -> tuple[str, str]:
    """ln p(x) by proposals of the data's own, and the share of the data that the weights support."""
    if "Adaptive" not in ev:
        return "–", "–"
    e = ev["Adaptive"]
    return f"{e.symbol} {e.log_evidence:.3f} ± {e.se_mc:.3f}", f"{1 - e.unreliable_share:.1%}"


def print_table(table: Table, title: str) -> None:
    """Prints to the terminal."""
    shown = rich.table.Table(title=visible(title), title_justify="left")
    for column in table.columns:
        shown.add_column(column, justify="left" if column in WORDS else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*map(visible, row))
    # In a terminal cells fold to fit; in a file or a pipe rows stay whole.
    (console if console.is_terminal else Console(width=WIDTH, markup=False, emoji=False)).print(shown)
    for note in table.notes:
        console.print(f"· {note}", highlight=False)


def markdown(table: Table, title: str) -> str:
    """Renders for a document."""
    words = [i for i, c in enumerate(table.columns) if c in WORDS]
    lines = table_lines(table.columns, table.rows, words)
    return "\n".join([title, "", *lines, "", *(f"- {note}" for note in table.notes)]) + "\n"
