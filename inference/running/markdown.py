"""Tables of a document."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def table_lines(
    head: Sequence[str], rows: Iterable[Sequence[str]], words: Collection[int] = (0,)
) -> list[str]:
    """Markdown lines of a table; columns `words` are text, to the left, all others figures, to the right."""
    rule = "|" + "".join("---|" if i in words else "---:|" for i in range(len(head)))
    return [_line(head), rule, *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)
