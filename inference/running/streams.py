"""Standard streams that take every character, act on none of those shown, and outlive their reader."""

from __future__ import annotations

import codecs
import contextlib
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyrovae.text import visible

# What consoles without Unicode show in place of our signs.
PLAIN = {
    **{
        "≥": ">=",
        "≤": "<=",
        "±": "+-",
        "−": "-",
        "–": "-",
        "—": "-",
        "·": "*",
        "…": "...",
        "→": "->",
        "×": "x",
    },
    **{"Δ": "D", "∞": "inf", "‖": "||", "⟨": "<", "⟩": ">", "∈": "in", "\u0302": "-hat", "\u0304": "-bar"},
    **{"²": "^2", "³": "^3", "√": "sqrt", "Σ": "sum", "∫": "int", "∂": "d", "∇": "grad", "ε": "eps"},
    **{
        "α": "alpha",
        "β": "beta",
        "γ": "gamma",
        "δ": "delta",
        "θ": "theta",
        "φ": "phi",
        "σ": "sigma",
        "μ": "mu",
    },
    **{c: "-" for c in "─━╌╍═╸╺"},
    **{c: "|" for c in "│┃║"},
}


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    shown = "".join(_instead(c) for c in error.object[error.start : error.end])
    try:
        shown.encode(error.encoding)
    except UnicodeError:
        shown = "?" * (error.end - error.start)
    return shown, error.end


def _instead(c: str) -> str:
    if c in PLAIN:
        return PLAIN[c]
    if "BOX DRAWINGS" in unicodedata.name(c, ""):
        return "+"
    letters = unicodedata.normalize("NFKD", c).encode("ascii", "ignore").decode()
    return letters or "?"


codecs.register_error("pyrovae-plain", _plain)


class Patient:
    """A stream whose reader may go (`| head`): what follows is lost to it, and the work goes on.

    What is printed cannot act on a terminal, whatever file it came from; only rich, which writes to
    `rich_proxied_file`, moves the cursor and colours.
    """

    def __init__(self, stream: Any, styled: bool = False) -> None:
        self._stream, self._styled = stream, styled
        if not styled:
            self.rich_proxied_file = Patient(stream, styled=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes as the stream does, while somebody reads it."""
        with self._alone():
            self._stream.write(text if self._styled else visible(text, "\n\t\r"))
        return len(text)

    def flush(self) -> None:
        """Flushes as the stream does, while somebody reads it."""
        with self._alone():
            self._stream.flush()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self._stream.fileno())
            os.close(nothing)


@contextmanager
def patient_streams() -> Iterator[None]:
    """Lets standard output and error take every character and outlive their readers, in the body."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(errors="pyrovae-plain")  # type: ignore[union-attr]  # or AttributeError
    out, err = Patient(sys.stdout), Patient(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            yield
        finally:
            out.flush()
            err.flush()
