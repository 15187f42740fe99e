"""A comparison as text: for a terminal, for documents, for a notebook, as a page."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import rich.table
from rich.console import Console

from ..data import Dataset
from ..pages.latex import latex_table
from ..pages.tables import html_notes, html_table
from ..runs.report import write_page
from ..text import table_lines, visible
from .cell import Cell
from .columns import best_of
from .entry import Entry
from .table import WORDS, Table

WIDTH = 200
CURVES = 6  # more of them cannot be told apart in one picture


def rich_table(table: Table, title: str) -> rich.table.Table:
    """For rich's console."""
    shown = rich.table.Table(title=visible(title), title_justify="left")
    for column in table.columns:
        shown.add_column(column, justify="left" if column in WORDS else "right", overflow="fold")
    for row in table.rows:
        shown.add_row(*map(visible, row))
    return shown


def terminal(table: Table, title: str) -> str:
    """For a terminal; rows stay whole."""
    out = io.StringIO()
    shown = rich_table(table, title)
    # Kernels of notebooks have rich show what is meant to become text, and colour it.
    plain = functools.partial(
        Console, file=out, markup=False, emoji=False, force_jupyter=False, force_terminal=False
    )
    plain(width=plain(width=10_000).measure(shown).maximum).print(shown)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    return "\n".join([*lines, *(f"· {visible(note)}" for note in table.all_notes)]) + "\n"


def markdown(table: Table, title: str) -> str:
    """For a document."""
    words = [i for i, c in enumerate(table.columns) if c in WORDS]
    rows = [tuple(cell.replace("|", r"\|") for cell in row) for row in table.rows]
    lines = table_lines(table.columns, rows, words)
    return "\n".join([title, "", *lines, "", *(f"- {note}" for note in table.all_notes)]) + "\n"


def latex(table: Table, title: str) -> str:
    """A table environment of the package booktabs, title and notes as its caption."""
    words = [i for i, c in enumerate(table.columns) if c in WORDS]
    return latex_table(table.columns, table.rows, [f"{title}.", *table.all_notes], words)


def notebook(table: Table, title: str, warnings: list[str]) -> str:
    """HTML: figures with their direction, and why rows have none; what the evidence says of its figures unfolds."""
    signs = [table.signs.get(c, "") for c in table.columns]
    rows = [
        tuple(
            f"{sign} {cell}" if sign and "±" in cell else cell for cell, sign in zip(row, signs, strict=True)
        )
        for row in table.rows
    ]
    words = [i for i, c in enumerate(table.columns) if c in WORDS]
    shown = html_table(table.columns, rows, title, table.notes, table.reasons, words)
    if not warnings:
        return shown
    told = html_notes(warnings=warnings)
    return f"{shown}<details><summary>{len(warnings)} warnings on the estimates</summary>{told}</details>"


def write_report(
    path: str | os.PathLike[str],
    cells: Sequence[Cell],
    data: Dataset,
    entries: Sequence[Entry],
    table: str,
    plot: Callable[[], Any],
) -> Path:
    """Writes a page of a comparison: table, differences, training, L_K curves, the best's estimates, configuration.

    Curves of several seeds are those of the first one.

    Args:
        path: of the page.
        cells: all of them.
        data: that they were trained and evaluated on.
        entries: rows with figures.
        table: of the figures, in HTML.
        plot: draws the differences to the best.

    Raises:
        OSError: the page cannot be written.
    """
    from .. import plots

    best = best_of(list(entries))
    shown = sorted(entries, key=lambda e: e.evidence.best.log_evidence, reverse=True)[:CURVES]
    seeds = list(dict.fromkeys(c.seed for c in cells))
    of = f" (seed {seeds[0]})" if len(seeds) > 1 else ""
    figures = {
        "Differences to the best": plot,
        f"Training{of}": lambda: plots.plot_histories({e.title: e.history for e in shown if e.history}),
        f"L_K of importance sampling{of}": lambda: plots.plot_lk_curve({e.title: e.evidence for e in shown}),
        f"Estimates of the best, {best.title}{of}": best.evidence.plot,
    }
    config = {
        "data": data.spec.to_json(),
        "programs": ", ".join(dict.fromkeys(c.title for c in cells)),
        "seeds": ", ".join(map(str, seeds)),
        "estimators": ", ".join(map(repr, cells[0].estimators)),
        "fit": {k: v for k, v in cells[0].arguments().items() if k not in ("objective", "seed")},
    }
    again = f"import pyrovae as pv\n\nresult = pv.compare(...)\nresult.report({os.fspath(path)!r})"
    title = f"Comparison on {data.spec.title('test')}"
    return write_page(path, title, "", table, figures, config, again, best.evidence.attributes)


STYLES: dict[str, Callable[[Table, str], str]] = {
    "terminal": terminal,
    "markdown": markdown,
    "latex": latex,
}
