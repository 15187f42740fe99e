"""One self-contained HTML page of a trained program: no network, no scripts."""

from __future__ import annotations

import base64
import os
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..files import write_whole
from ..pages.tables import escaped, html_notes, html_table

# Figures are drawn for white: on a dark page they stand on a plate. On a narrow screen wide ones are scrolled before
# their text is too small to be read, as tables are. Paper does not scroll, and is white.
_STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem; break-after: avoid }
.figure { overflow-x: auto } img { max-width: max(100%, 38rem); background: white; break-inside: avoid }
pre { overflow-x: auto; padding: 0.7em; border: 1px solid currentColor }
@media (prefers-color-scheme: dark) { img { padding: 0.5rem; border-radius: 0.3rem; box-sizing: border-box } }
@media print {
:root { color-scheme: light } body { font-size: 10pt; margin: 0; padding: 0 } tr { break-inside: avoid }
.figure { overflow: visible } img { max-width: 100%; padding: 0 } pre { white-space: pre-wrap }
.pyrovae > div { overflow: visible !important } th, td { padding: 0.1em 0.3em !important }
table { font-size: 0.75em !important }
}
"""
_CITE = (
    "pyrovae {version}: deep latent-variable models in Pyro, with evidence you can trust (see CITATION.cff)."
)


def write_page(
    path: str | os.PathLike[str],
    title: str,
    face: str,
    evidence: str,
    figures: Mapping[str, Callable[[], Any]],
    config: Mapping[str, Any],
    again: str,
    attributes: Mapping[str, Any],
) -> Path:
    """Writes the page, whole or not at all; returns its path.

    Args:
        path: of the page.
        title: its heading.
        face: HTML of what was trained on what, with the curve of the training.
        evidence: HTML of the figures.
        figures: heading to what draws it, or gives it as HTML; one that raises a ValueError is left out, with the
            reason.
        config: what the program was trained with.
        again: Python that gives the same figures again.
        attributes: of an evidence: the versions that it was estimated with.

    Raises:
        OSError: the page cannot be written.
    """
    drawn = [f"<h2>{escaped(head)}</h2>{_figure(draw, head)}" for head, draw in figures.items()]
    versions = {"pyrovae": _version("pyrovae"), "python": platform.python_version()}
    versions |= {name: str(attributes.get(name, "–")) for name in ("torch", "pyro")}
    rows = [*_flat(config), *versions.items()]
    parts = [
        f"<h1>{escaped(title)}</h1>",
        face,
        "<h2>Evidence</h2>",
        evidence,
        *drawn,
        "<h2>Configuration and versions</h2>",
        html_table(["", ""], rows),
        f"<h2>Again</h2><pre>{escaped_lines(again)}</pre>",
        f"<h2>Citing</h2><p>{escaped(_CITE.format(version=versions['pyrovae']))}</p>",
    ]
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escaped(title)}</title><style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )
    write_whole(path, page)
    return Path(path)


def escaped_lines(text: str) -> str:
    """Lines as HTML shows them."""
    return "\n".join(map(escaped, text.splitlines()))


def _figure(draw: Callable[[], Any], name: str) -> str:
    """The figure in the page itself: an image, or what is HTML already."""
    from ..plots.saving import drawn

    try:
        figure = draw()
        if isinstance(figure, str):
            return f'<div class="figure">{figure}</div>'
        content = drawn(figure, ".png")
    except ValueError as error:
        return html_notes([f"left out: {error}"])
    encoded = base64.b64encode(content).decode("ascii")
    return f'<div class="figure"><img alt="{escaped(name)}" src="data:image/png;base64,{encoded}"></div>'


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Keys of nested mappings, joined by dots, and their values."""
    rows: list[tuple[str, str]] = []
    for key, value in config.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        elif value is not None:
            rows.append((f"{prefix}{key}", str(value)))
    return rows


def _version(name: str) -> str:
    try:
        return version(name)
    except ImportError:  # run from a copy that was never installed
        return "unknown"
