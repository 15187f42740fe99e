"""Options as they come from a file: of the kinds and ranges that this version knows, or an error of one line."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


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
        fits, plain[name] = _taken(value, hints[name])
        if not fits:
            raise ValueError(
                f"expected {name} in the run's config to be {_words(hints[name])}, got {value!r}: it is damaged, or of "
                "another version"
            )
    return kind(**plain)


def _taken(value: Any, hint: Any) -> tuple[bool, Any]:
    """Whether a value of JSON is of the kind of a hint, and the value in that kind."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        found = [(fits, taken) for fits, taken in (_taken(value, a) for a in arguments) if fits]
        return found[0] if found else (False, value)
    if origin is Literal:
        return isinstance(value, str) and value in arguments, value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False, value
        items = [_taken(v, arguments[0]) for v in value]
        return all(fits for fits, _ in items), tuple(taken for _, taken in items)
    if hint is type(None):
        return value is None, value
    if hint is Path:
        return isinstance(value, str) and "\0" not in value, Path(value) if isinstance(value, str) else value
    if hint is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        return fits and abs(value) < 1e300, value  # or NaN, or a whole number that no float holds
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool), value
    return isinstance(value, hint), value


def _words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_words(a) for a in get_args(hint))
    if get_origin(hint) is tuple:
        return f"a list of {_words(get_args(hint)[0])}"
    return "null" if hint is type(None) else getattr(hint, "__name__", str(hint))
