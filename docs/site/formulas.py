"""Formulas between dollar signs, as GitHub shows them, turned into MathML: the site needs no script for them."""

from __future__ import annotations

import re

from latex2mathml.converter import convert

# Code stays as it is: fenced, indented, and between backticks.
PIECES = re.compile(r"(^```.*?^```[^\n]*$|^(?: {4}|\t)[^\n]*$|`[^`\n]+`)", re.S | re.M)
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$(?=\S)((?:[^$\n]|\n(?!\n))+?)(?<=\S)\$(?![\w$])", re.S)
# A function's name stands apart from an argument without parentheses.
APART = re.compile(r"(<mi>(?:ln|log|exp|sin|cos)</mi>)(?!<mo stretchy=\"false\">&#x00028;)")


def with_mathml(text: str) -> str:
    """Markdown whose formulas are MathML."""
    pieces = PIECES.split(text)
    return "".join(p if i % 2 else FORMULA.sub(_mathml, p) for i, p in enumerate(pieces))


def _mathml(match: re.Match[str]) -> str:
    block, inline = match.groups()
    made = convert((block or inline).strip(), display="block" if block else "inline")
    made = APART.sub(r'\1<mspace width="0.167em" />', made)
    # What Markdown would read as emphasis or as a cell's end.
    made = re.sub(r">([^<]*)<", lambda m: ">" + re.sub(r"[*_|\\]", _entity, m[1]) + "<", made)
    # At the start of a line a bare <math> would be a block of its own.
    return f"\n\n{made}\n\n" if block else f"<span>{made}</span>"


def _entity(match: re.Match[str]) -> str:
    return f"&#{ord(match.group())};"
