"""On which side of ln p(x) an estimate lies in expectation."""

from __future__ import annotations

from typing import Literal

Direction = Literal["<=", ">=", "~", "none"]
# Of the negative of what is estimated.
REVERSED: dict[Direction, Direction] = {"<=": ">=", ">=": "<=", "~": "~", "none": "none"}


def symbol_of(direction: Direction) -> str:
    """The quantity against its estimate: a lower bound reads "≥"."""
    return {"<=": "≥", ">=": "≤", "~": "≈", "none": "?"}[direction]
