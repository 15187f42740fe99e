"""Text from files and command lines, as it may be shown: nothing in it acts on a terminal."""

from __future__ import annotations

import unicodedata

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
