"""JSON from files that anybody may have written: of a size, depth and kinds that no reader stumbles over."""

from __future__ import annotations

import dataclasses
import json
import os
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

DEEPEST = 100
SHOWN = 80  # characters of a wrong value
KIND_WORDS = {
    str: "a text",
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
    dict: "an object",
}
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


def check_kinds(values: Mapping[str, Any], hints: Mapping[str, Any], where: object) -> None:
    """Refuses values from a file that are not of the kinds of their names.

    Raises:
        ValueError: naming the first of them.
    """
    for name, hint in hints.items():
        if name in values and not of_kind(values[name], hint)[0]:
            shown = repr(values[name])
            raise ValueError(
                f"expected {name} in {where} to be {kind_words(hint)}, got "
                f"{shown if len(shown) <= SHOWN else shown[:SHOWN] + '...'}: it is damaged"
            )


def of_kind(value: Any, hint: Any) -> tuple[bool, Any]:
    """Whether a value of JSON is of the kind of a hint, and the value in that kind."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        found = [(fits, taken) for fits, taken in (of_kind(value, a) for a in arguments) if fits]
        return found[0] if found else (False, value)
    if origin is Literal:
        return isinstance(value, str) and value in arguments, value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False, value
        items = [of_kind(v, arguments[0]) for v in value]
        return all(fits for fits, _ in items), tuple(taken for _, taken in items)
    if origin is dict:
        named = isinstance(value, dict)
        return named and all(of_kind(v, arguments[1])[0] for v in value.values()), value
    if dataclasses.is_dataclass(hint):  # as its `to_json` gives it
        hints = get_type_hints(hint)
        named = isinstance(value, dict) and set(value) == set(hints)
        return named and all(of_kind(v, hints[k])[0] for k, v in value.items()), value
    if hint is type(None):
        return value is None, value
    if hint is Path:
        return isinstance(value, str) and "\0" not in value, Path(value) if isinstance(value, str) else value
    if hint is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
        return fits and abs(value) < 1e300, value  # or NaN, or a whole number that no float holds
    if hint is int:
        fits = isinstance(value, int) and not isinstance(value, bool)
        return fits and -(1 << 63) <= value < 1 << 63, value
    return isinstance(value, hint), value


def kind_words(hint: Any) -> str:
    """A hint as errors say it."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(kind_words(a) for a in get_args(hint))
    if get_origin(hint) is tuple:
        return f"a list of {kind_words(get_args(hint)[0])}"
    if get_origin(hint) is dict:
        return f"an object of names and {kind_words(get_args(hint)[1])}"
    if dataclasses.is_dataclass(hint):
        return f"an object of {', '.join(f.name for f in dataclasses.fields(hint))}"
    return "null" if hint is type(None) else KIND_WORDS.get(hint, getattr(hint, "__name__", str(hint)))
