"""Curves as inline SVG for notebooks and pages: in the colours of the page they stand in, without scripts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .tables import escaped

WIDTH, HEIGHT = 360, 110
LEFT, BOTTOM, TOP, RIGHT = 58, 18, 8, 8
_DASHES = ("none", "4 2", "1 2")


def svg_curves(x: Sequence[float], curves: Mapping[str, Sequence[float]], unit: str = "") -> str:
    """An SVG element of lines against x, told apart by their dashes; NaN leaves a gap.

    The first tenth may lie below the frame, where it would flatten the rest.

    Args:
        x: of all curves.
        curves: values by name, at most three.
        unit: of the values.

    Raises:
        ValueError: no finite value, or more than three curves.
    """
    found = {name: list(values) for name, values in curves.items() if any(map(math.isfinite, values))}
    if not 0 < len(found) <= len(_DASHES):
        raise ValueError(f"expected 1 to {len(_DASHES)} curves with finite values, got {len(found)}")
    late = [v for values in found.values() for v in values[len(values) // 10 :] if math.isfinite(v)]
    every = late or [v for values in found.values() for v in values if math.isfinite(v)]
    low, high = min(every), max(every)
    span, length = (high - low) or 1.0, (x[-1] - x[0]) or 1.0

    def place(a: float, b: float) -> str:
        across = LEFT + (WIDTH - LEFT - RIGHT) * (a - x[0]) / length
        down = TOP + (HEIGHT - TOP - BOTTOM) * (high - b) / span
        return f"{across:.1f},{min(down, HEIGHT - BOTTOM):.1f}"

    lines = []
    for dash, (name, values) in zip(_DASHES, found.items(), strict=False):
        points = [place(a, b) for a, b in zip(x, values, strict=True) if math.isfinite(b)]
        shape = f'<polyline points="{" ".join(points)}" fill="none" stroke="currentColor"'
        if len(points) == 1:
            cx, cy = points[0].split(",")
            shape = f'<circle cx="{cx}" cy="{cy}" r="2" fill="currentColor"'
        lines.append(
            f'{shape} stroke-dasharray="{dash}"><title>{escaped(name)}</title></{shape[1:].split()[0]}>'
        )
    marks = [(LEFT - 4, TOP + 6, "end", f"{high:.4g}"), (LEFT - 4, HEIGHT - BOTTOM, "end", f"{low:.4g}")]
    marks += [(LEFT, HEIGHT - 4, "start", f"{x[0]:g}"), (WIDTH - RIGHT, HEIGHT - 4, "end", f"{x[-1]:g}")]
    kinds = {"none": "solid", "4 2": "dashed", "1 2": "dotted"}
    said = ", ".join(f"{name} {kinds[d]}" for d, name in zip(_DASHES, found, strict=False))
    marks.append(((LEFT + WIDTH - RIGHT) // 2, HEIGHT - 4, "middle", f"{said} {unit}".strip()))
    texts = "".join(
        f'<text x="{a}" y="{b}" text-anchor="{anchor}" font-size="9" fill="currentColor">{escaped(text)}</text>'
        for a, b, anchor, text in marks
    )
    base = HEIGHT - BOTTOM
    axes = (
        f'<path d="M{LEFT},{TOP} V{base} H{WIDTH - RIGHT}" fill="none" stroke="currentColor" opacity="0.4"/>'
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" style="max-width:100%" role="img" '
        f'aria-label="{escaped(said)}" font-family="sans-serif">{axes}{"".join(lines)}{texts}</svg>'
    )
