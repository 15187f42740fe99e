"""JSON from files that anybody may have written: of a size and depth that no reader stumbles over."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

DEEPEST = 100
LARGEST = 1 << 24  # bytes; parsed, they may be thirty times as many


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: for other text, and for lists within lists beyond all that is ever written here.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    layer, depth = [value], 0
    while layer:
        depth += 1
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} deep")
        inner = [one for one in layer if isinstance(one, dict | list)]
        layer = [v for one in inner for v in (one.values() if isinstance(one, dict) else one)]
    return value


def read_json(path: str | os.PathLike[str]) -> Any:
    """The value in a JSON file (UTF-8).

    Raises:
        FileNotFoundError: no such file; a pipe or device, which may never end, is none.
        OSError: it could not be read.
        ValueError: another content, or more than any file of ours has.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"expected a file {file}, got none")
    size = file.stat().st_size
    if size > LARGEST:
        raise ValueError(f"it has {size:,} bytes")
    return parse_json(file.read_text(encoding="utf-8"))
