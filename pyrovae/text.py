"""Text as it may be shown: nothing from files and command lines acts on a terminal; tables of documents."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Collection, Iterable, Sequence

# Signs that a terminal acts on (Cc), that turn the order of what is read (Cf), that end a line (Zl, Zp), and bytes of
# file names that are no text (Cs).
_ACTS = ("Cc", "Cf", "Zl", "Zp", "Cs")
# Of the Cf: joiners and marks that scripts and emoji need.
_HARMLESS = "\u200c\u200d\u200e\u200f"


def acts(sign: str) -> bool:
    """Whether a character does something else than being seen."""
    return unicodedata.category(sign) in _ACTS and sign not in _HARMLESS


def has_controls(text: str) -> bool:
    """Whether any character acts on a terminal that shows it, or ends a line."""
    return not text.isprintable() and any(map(acts, text))


def visible(text: str, kept: str = "") -> str:
    r"""The text with such characters written out, like \x1b; those in `kept` stay as they are."""
    if text.isprintable():
        return text
    return "".join(
        c.encode("unicode_escape").decode("ascii") if acts(c) and c not in kept else c for c in text
    )


def table_lines(
    head: Sequence[str], rows: Iterable[Sequence[str]], words: Collection[int] = (0,)
) -> list[str]:
    """Markdown lines of a table; columns `words` are text, to the left, all others figures, to the right."""
    rule = "|" + "".join("---|" if i in words else "---:|" for i in range(len(head)))
    return [_line(head), rule, *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return "|" + "".join(f" {cell} |" if cell else " |" for cell in cells)


def listed(names: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")


def meant(name: str, known: Iterable[str]) -> str:
    """The known name that was probably meant, as a question; empty where no one is near."""
    known = list(known)
    same = [k for k in known if unicodedata.normalize("NFKC", k) == unicodedata.normalize("NFKC", name)]
    if same:
        return f"did you mean {same[0]!r}, which looks alike but is written with other Unicode characters?"
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else ""
