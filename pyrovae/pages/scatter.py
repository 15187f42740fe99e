"""Points as inline SVG for pages: each says what it is when it is pointed at, without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .tables import escaped

WIDTH, HEIGHT, MARGIN, TOP, LEGEND = 560, 420, 44, 10, 90
DARK = "#000000"  # seen on a white page alone


def svg_scatter(
    points: Sequence[tuple[float, float]],
    texts: Sequence[str],
    groups: Mapping[str, tuple[Sequence[int], str]],
    axes: tuple[str, str],
) -> str:
    """An SVG element of points in the plane, distances alike in both directions.

    Args:
        points: their places, finite.
        texts: of each, shown when it is pointed at.
        groups: name to (the points, their colour as `#rrggbb`); of a single group the name is not shown.
        axes: names of the axes.

    Raises:
        ValueError: no points, or as many texts.
    """
    if not points or len(points) != len(texts):
        raise ValueError(f"expected as many texts as points, got {len(texts)} and {len(points)}")
    lows, highs = (tuple(map(end, zip(*points, strict=True))) for end in (min, max))
    right = WIDTH - (LEGEND if len(groups) > 1 else 8)
    room = (right - MARGIN - 8, HEIGHT - MARGIN - TOP - 4)
    unit = min(r / ((h - low) or 1.0) for r, low, h in zip(room, lows, highs, strict=True))
    middle = [(low + h) / 2 for low, h in zip(lows, highs, strict=True)]
    centre = (MARGIN + 4 + room[0] / 2, TOP + room[1] / 2)

    def place(x: float, y: float) -> tuple[float, float]:
        return centre[0] + unit * (x - middle[0]), centre[1] - unit * (y - middle[1])

    parts = [
        f'<path d="M{MARGIN},{TOP - 6} V{HEIGHT - MARGIN} H{right}" fill="none" stroke="currentColor" opacity="0.4"/>'
    ]
    base = HEIGHT - MARGIN
    for value in (lows[0], highs[0]):
        parts.append(_text(place(value, 0)[0], base + 13, f"{value:.3g}"))
    for value in (lows[1], highs[1]):
        parts.append(_text(MARGIN - 4, place(0, value)[1] + 3, f"{value:.3g}", "end"))
    parts.append(_text((MARGIN + right) / 2, HEIGHT - 12, axes[0]))
    parts.append(f'<g transform="rotate(-90)">{_text(-base / 2, 12, axes[1])}</g>')
    for i, (name, (members, colour)) in enumerate(groups.items()):
        fill = "currentColor" if colour == DARK else colour
        dots = "".join(_dot(*place(*points[n]), texts[n]) for n in members)
        parts.append(f'<g fill="{fill}" fill-opacity="0.7">{dots}</g>')
        if len(groups) > 1:
            parts.append(f'<circle cx="{right + 10}" cy="{14 + 15 * i}" r="4" fill="{fill}"/>')
            parts.append(_text(right + 19, 17 + 15 * i, name, "start"))
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" style="max-width:100%" role="img" '
        f'aria-label="{escaped(" against ".join(reversed(axes)))}" font-family="sans-serif">{"".join(parts)}</svg>'
    )


def _dot(x: float, y: float, text: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{escaped(text)}</title></circle>'


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="10" fill="currentColor">'
        f"{escaped(text)}</text>"
    )
