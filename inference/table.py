"""The comparison table: one row a fit, paired differences to the best."""

from __future__ import annotations

from dataclasses import dataclass

import rich.table

from pyrovae.evidence import Evidence
from pyrovae.evidence.diagnostics import khat_threshold

from .grid import Cell, CellResult, Plan
from .running import console

COLUMNS = (
    "prior",
    "guide",
    "objective",
    "test ELBO ± se",
    "IS evidence ± se",
    "gap",
    "median ESS",
    "k̂ high",
    "Δ to best ± se",
    "seconds",
)


@dataclass(frozen=True)
class Table:
    """Rows of text, and notes below."""

    rows: list[tuple[str, ...]]
    notes: list[str]


def comparison_table(cells: list[Cell], plan: Plan, results: dict[Cell, CellResult]) -> Table:
    """Rows in the grid's order; differences are paired over the test data."""
    if not results:
        raise ValueError(
            "expected an objective that is valid for a program, got: " + "; ".join(plan.refused.values())
        )
    best = max((r.evidence for r in results.values()), key=lambda ev: ev["IS"].log_evidence)
    rows: list[tuple[str, ...]] = []
    notes: list[str] = []
    for cell in cells:
        prior, guide, objective = cell.label
        if cell in plan.same:
            continue
        if cell in plan.refused:
            rows.append((prior, guide, objective, "refused", *("–",) * 6))
            notes.append(f"{prior} {guide} {objective} refused: {plan.refused[cell]}")
            continue
        shown = "either" if cell in plan.same.values() else objective
        rows.append((prior, guide, shown, *_figures(results[cell].evidence, best, results[cell].seconds)))
    if plan.same:
        notes.append(
            "either: the KL has no closed form there, so trace-elbo and mean-field are the same estimator with "
            "the same noise, and run once."
        )
    notes.append(
        "IS evidence is a lower bound on ln p(x) (≥), its error is over the test data; the certificate of the "
        f"best: mean ln p(x) ≥ {best['IS'].certificate:.3f} with probability {1 - best['IS'].delta:.0%}. "
        "Differences of two lower bounds show the order, not the exact distance."
    )
    return Table(rows, notes)


def _figures(ev: Evidence, best: Evidence, seconds: float) -> tuple[str, ...]:
    elbo, weights = ev["ELBO"], ev["IS"]
    assert weights.ess is not None and weights.khat is not None
    high = float((weights.khat > khat_threshold(weights.num_samples)).double().mean())
    if ev is best:
        difference = "best"
    else:
        paired = ev.compare(best)
        difference = f"{paired.difference:+.3f} ± {paired.se:.3f}"
    return (
        f"{elbo.log_evidence:.3f} ± {elbo.se_data:.3f}",
        f"{weights.log_evidence:.3f} ± {weights.se_data:.3f}",
        f"{ev.gap:.3f}",
        f"{float(weights.ess.median()):.0f}",
        f"{high:.0%}",
        difference,
        f"{seconds:.0f}",
    )


def print_table(table: Table, title: str) -> None:
    """To the terminal."""
    shown = rich.table.Table(title=title, title_justify="left")
    for i, column in enumerate(COLUMNS):
        shown.add_column(column, justify="left" if i < 3 else "right")
    for row in table.rows:
        shown.add_row(*row)
    console.print(shown)
    for note in table.notes:
        console.print(f"· {note}", highlight=False)


def markdown(table: Table, title: str) -> str:
    """For a document."""
    lines = [title, "", "| " + " | ".join(COLUMNS) + " |", "|" + "---|" * 3 + "---:|" * (len(COLUMNS) - 3)]
    lines += ["| " + " | ".join(row) + " |" for row in table.rows]
    return "\n".join([*lines, "", *(f"- {note}" for note in table.notes)]) + "\n"
