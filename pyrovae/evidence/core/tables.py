"""A table with a title and notes, for a terminal and for documents."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from ...pages.latex import latex_table


def check_style(style: str) -> None:
    """Raises ValueError for a style other than `"terminal"`, `"markdown"` and `"latex"`."""
    if style not in ("terminal", "markdown", "latex"):
        raise ValueError(f"expected style 'terminal', 'markdown' or 'latex', got {style!r}")


def render(
    style: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    title: str,
    notes: Sequence[str],
    *,
    titled: bool = True,
    width: int = 120,
) -> str:
    """Text of the table: as wide as its columns need, notes below it.

    Args:
        style: `"terminal"`, `"markdown"`, or `"latex"` (package booktabs; title and notes are its caption).
        head, rows: cells; the first column is text, the others numbers.
        title: above the table of a terminal, below that of a document (where `titled`).
        notes: a line each.
        titled: whether a document shows the title.
        width: of a terminal, at least.

    Raises:
        ValueError: another style.
    """
    check_style(style)
    if style == "latex":
        return latex_table(head, rows, [f"{part.rstrip('.')}." for part in (title, *notes)])
    if style == "markdown":
        lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        lines += ["", title, ""] if titled else [""]
        return "\n".join([*lines, *(f"- {note}" for note in notes)]) + "\n"
    table = Table(title=title, title_justify="left")
    for i, column in enumerate(head):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    out = io.StringIO()
    # Without markup: [nats] is no style. Kernels of notebooks have rich show and colour it.
    plain = functools.partial(
        Console, file=out, markup=False, emoji=False, force_jupyter=False, force_terminal=False
    )
    needed = plain(width=10_000).measure(table).maximum
    plain(width=max(width, needed)).print(table)
    console = plain(width=width)
    for note in notes:
        console.print(f"· {note}", highlight=False, markup=False)
    return out.getvalue()
