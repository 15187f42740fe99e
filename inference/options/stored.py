"""Options as they come from a file: of the kinds and ranges that this version knows, or an error of one line."""

from __future__ import annotations

import dataclasses
from typing import Any, get_type_hints

from pyrovae.json_files import kind_words, of_kind


def options_from(kind: Any, values: Any) -> Any:
    """An options object of these values.

    Raises:
        ValueError: naming an option that this version does not have, or whose value it does not know.
    """
    hints = get_type_hints(kind)
    known = {f.name for f in dataclasses.fields(kind)}
    if not isinstance(values, dict) or not set(values) <= known:
        found = sorted(values) if isinstance(values, dict) else type(values).__name__
        raise ValueError(f"expected options {sorted(known)} in the run's config, got {found}")
    plain = {}
    for name, value in values.items():
        fits, plain[name] = of_kind(value, hints[name])
        if not fits:
            raise ValueError(
                f"expected {name} in the run's config to be {kind_words(hints[name])}, got {value!r}: it is damaged, "
                "or of another version"
            )
    return kind(**plain)
