"""Tables in HTML for notebooks and pages: escaped, without scripts, in the colours of the page they stand in."""

from __future__ import annotations

import html
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from ..text import visible

_TABLE = "border-collapse:collapse;margin:0.3em 0;color:inherit;font-size:inherit"
_LINE = "border-bottom:1px solid color-mix(in srgb, currentColor 35%, transparent)"
_CELL = "padding:0.15em 0.7em;background:none;color:inherit;"
_NOTE = "margin:0.3em 0;max-width:60em;opacity:0.8"
# A line beside the text in place of a colour of it, which a dark page may swallow.
_WARNING = "margin:0.3em 0;max-width:60em;padding-left:0.7em;border-left:3px solid #d98e04"


def escaped(value: Any) -> str:
    r"""Text of a value as HTML shows it: markup is seen, and signs that act on a reader are written out, like \x1b."""
    return html.escape(visible(str(value)))


def html_table(
    columns: Sequence[Any],
    rows: Iterable[Sequence[Any]],
    caption: str = "",
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
    words: Collection[int] = (0,),
) -> str:
    """A table as an HTML fragment: for `_repr_html_` and for pages.

    All text is escaped. Figures are on the right; without heads all is text.
    Colours are those of the page, so that it can be read on light and on dark.

    Args:
        columns: heads; where all are empty there is no head.
        rows: a cell a column.
        caption: above the table.
        notes: below it, a line each.
        warnings: below those, set apart as such.
        words: columns of text; the others have figures.

    Raises:
        ValueError: a row with another number of cells than there are columns.

    Example:
        >>> html_table(["estimator", "ln p(x)"], [["<IS>", "≥ -1.25"]]).count("&lt;IS&gt;")
        1
    """
    lines = []
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"expected {len(columns)} cells in each row, got {len(row)}: {list(row)}")
        lines.append(row)
    headed = any(str(c) for c in columns)
    texts = words if headed else range(len(columns))
    head = f"<thead>{_row('th', columns, texts)}</thead>" if headed else ""
    body = "".join(_row("td", row, texts) for row in lines)
    title = f'<div style="margin:0.3em 0"><b>{escaped(caption)}</b></div>' if caption else ""
    table = f'<div style="overflow-x:auto"><table style="{_TABLE}">{head}<tbody>{body}</tbody></table></div>'
    return f'<div class="pyrovae">{title}{table}{html_notes(notes, warnings)}</div>'


def html_notes(notes: Sequence[str] = (), warnings: Sequence[str] = ()) -> str:
    """Lines of text below a table or a figure, the warnings set apart."""
    below = [f'<div style="{_NOTE}">{escaped(note)}</div>' for note in notes]
    below += [
        f'<div role="note" style="{_WARNING}"><b>Warning:</b> {escaped(text)}</div>' for text in warnings
    ]
    return "".join(below)


def _row(tag: str, cells: Sequence[Any], words: Collection[int]) -> str:
    made = []
    for i, cell in enumerate(cells):
        where = "text-align:left" if i in words else "text-align:right;white-space:nowrap"
        made.append(f'<{tag} style="{_CELL}{where};{_LINE}">{escaped(cell)}</{tag}>')
    return f"<tr>{''.join(made)}</tr>"
