"""The table of a comparison: one row a program, with paired differences to the best or to a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .columns import NONE, Columns, best_of, certificate
from .entry import Entry, difference
from .seeds import LEVEL

GRID = ("prior", "guide", "objective")
WORDS = ("run", "program", "prior", "guide", "likelihood", "objective")  # columns of text
DIRECTIONS = {
    "<=": "a lower bound on ln p(x) (≥)",
    ">=": "an upper bound on ln p(x) (≤)",
    "~": "an estimate of ln p(x) itself (≈)",
    "none": "ln f(x) of a density that is not normalised",
}


@dataclass(frozen=True)
class Table:
    """Rows of text, and notes below.

    Attributes:
        columns: heads.
        rows: cells, one tuple a row.
        notes: what a reader of the figures must know.
        reasons: why rows have no figures, which come before the notes.
        signs: ln p(x) against the figures of a column, by its head: "≥" for lower bounds.
    """

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: list[str]
    reasons: list[str] = field(default_factory=list)
    signs: dict[str, str] = field(default_factory=dict)

    @property
    def all_notes(self) -> list[str]:
        """Reasons, then notes."""
        return [*self.reasons, *self.notes]


@dataclass(frozen=True)
class Without:
    """A row without figures.

    Attributes:
        label: as that of an entry.
        word: "refused" or "failed".
        reason: why.
    """

    label: tuple[str, ...]
    word: str
    reason: str

    @property
    def title(self) -> str:
        """The label in one string."""
        return " ".join(filter(None, self.label))


def runs_table(entries: Sequence[Entry], split: str, baseline: Entry | None = None) -> Table:
    """One row a run folder; differences to `baseline`, or to the best, are paired over the data.

    Raises:
        ValueError: masses and densities together.
    """
    word = "best" if baseline is None else "baseline"
    columns = Columns.of(entries, split, word)
    target = baseline or best_of(entries)
    rows = [(e.name, *e.label, *columns.figures(e, target, word)) for e in entries]
    pairs = [(e.title, e.evidence.compare(target.evidence)) for e in entries if e is not target]
    wide = [f"{title}: {warning}" for title, c in pairs for warning in c.warnings]
    notes = [_direction(target, baseline is None, len(entries), columns), *wide]
    return Table(("run", *GRID, *columns.heads), rows, notes)


def comparison_table(
    rows: Sequence[Entry | Without],
    others: Sequence[Entry] = (),
    heads: tuple[str, ...] = GRID,
    split: str = "test",
) -> Table:
    """Rows in the order of the comparison, then those of run folders.

    Args:
        rows: programs, with figures or without.
        others: run folders beside them.
        heads: what the parts of a label are.
        split: of the data.

    Raises:
        ValueError: masses and densities together.
    """
    entries = [row for row in rows if isinstance(row, Entry)]
    ranked = [*entries, *others]
    columns = Columns.of(ranked, split)
    best = best_of(ranked) if ranked else None
    lines: list[tuple[str, ...]] = []
    reasons: list[str] = []
    for row in rows:
        if isinstance(row, Without):
            lines.append((*row.label, row.word, *(NONE,) * (len(columns.heads) - 1)))
            reasons.append(f"{row.title} {row.word}: {row.reason}")
            continue
        assert best is not None
        reasons += [f"{row.title} failed with seed {seed}: {why}" for seed, why in row.lost.items()]
        label = (*row.label[:-1], "either") if row.either else row.label
        lines.append((*label, *columns.figures(row, best, among=len(ranked))))
    notes = [_either(entries)] if any(e.either for e in entries) else []
    if best is not None:
        notes += _over_seeds(ranked, best, columns) if columns.seeded else []
        notes.append(_direction(best, True, len(ranked), columns))
    table = Table((*heads, *columns.heads), lines, notes, reasons, columns.signs(ranked))
    if not others or best is None:
        return table
    lines = [("grid", *line) for line in lines]
    lines += [(e.name, *e.label, *columns.figures(e, best, among=len(ranked))) for e in others]
    return Table(("run", *table.columns), lines, notes, reasons, table.signs)


def _either(entries: Sequence[Entry]) -> str:
    named = all(e.label[-1] == "trace-elbo" for e in entries if e.either)
    first, second = ("trace-elbo", "mean-field") if named else ("Trace_ELBO", "TraceMeanField_ELBO")
    alike = "" if named else ", as are objectives of one class with equal attributes"
    return (
        f"either: the KL has no closed form there, so {first} and {second} are the same estimator with the same noise"
        f"{alike}, and run once."
    )


def _over_seeds(entries: Sequence[Entry], best: Entry, columns: Columns) -> list[str]:
    """How the errors over data and over seeds are meant, and whether the order stands on the latter."""
    number, among = max(len(e.evidences) for e in entries), len(entries)
    notes = [
        f"Figures are means over {number} seeds. ± se is the error over the data, of the means over seeds; sd over "
        "seeds is the spread of the seeds' means of the figure that ranks, and ± seeds that of their mean, sd / √S. "
        "Both errors together are the root of the sum of their squares."
    ]
    if among < 2:
        return notes
    found = [(e.title, difference(e, best, among)) for e in entries if e is not best]
    stands = [title for title, d in found if d.order_stands]
    open_ = [title for title, d in found if d.order_stands is False]
    verdict = [f"it stands for {', '.join(stands)}"] if stands else []
    verdict += [f"it is open for {', '.join(open_)}: more seeds may turn it"] if open_ else []
    words = "; ".join(verdict) if verdict else "a single seed in common cannot say"
    notes.append(
        f"Differences are paired over data and seeds. Order to the best on the spread over seeds ({LEVEL:.0%} t "
        f"intervals for all pairs of {among} programs at once, and the Monte-Carlo error; the count: seeds in which "
        f"the best is ahead): {words}."
    )
    return notes


def _direction(target: Entry, best: bool, number: int, columns: Columns) -> str:
    """Note on the figures; the certificate of the best is one among `number`, chosen after the fact."""
    found = {n: e for n in columns.estimators for e in target.estimates(n)[:1]}
    which = "the best" if best else f"the baseline, {target.title}"
    certified = ""
    value = certificate(target, number if best else 1)
    if value is not None:
        delta = next(e.delta for e in target.evidence.values() if e.certificate is not None)
        chosen = f", chosen among {number}" if best and number > 1 else ""
        mean = "mean ln p(x)" if len(target.evidences) == 1 else "mean ln p(x) over its seeds"
        certified = (
            f"; the certificate of {which}{chosen}: {mean} ≥ {value:.3f} with probability {1 - delta:.0%} "
            "(a row's is its own)"
        )
    if "IS" in found:
        words = "IS evidence is a lower bound on ln p(x) (≥)"
    else:
        words = "; ".join(f"{n} is {DIRECTIONS[e.direction]}" for n, e in found.items())
    distance = " Differences of two lower bounds show the order, not the exact distance."
    if found and all(e.direction == "~" for n, e in found.items() if n != "ELBO") and set(found) != {"ELBO"}:
        distance = ""
    return f"{words}, its error is over the data{certified}.{distance}"
