"""Help of the scripts: the usual options on one screen, and all of them by topic on demand."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import tyro

LEFT, WIDEST = 21, 100  # columns of the names, and of a line
_SENTENCE = re.compile(r"(?<=\.) (?=[A-Z])")
_CLAUSE = re.compile(r"(?<=[.:;]) (?![^(]*\))")  # outside of brackets
_WORD = re.compile(r"[\w-]+")


def parse(options: type, argv: Sequence[str] | None, name: str, description: str) -> Any:
    """Options of a command line.

    `--help` shows those that `options.BASIC` names, where it names any; `--help-all` shows all.

    Raises:
        SystemExit: with code 0 after help, with code 2 for words that are no options.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    asks_all = "--help-all" in (word.replace("_", "-") for word in words)
    if not asks_all and hasattr(options, "BASIC") and {"-h", "--help"} & set(words):
        print(short_help(options, called(name), description))
        raise SystemExit(0)
    return tyro.cli(
        options, args=["--help"] if asks_all else words, prog=called(name), description=description
    )


def called(name: str) -> str:
    """The command in the words that started it: `pyrovae train`, or `python inference/train.py`."""
    return f"python inference/{name}.py" if Path(sys.argv[0]).name == f"{name}.py" else f"pyrovae {name}"


def short_help(options: Any, prog: str, description: str) -> str:
    """Usage, and one entry for each option of `options.BASIC`, by topic."""
    width, basic = min(WIDEST, shutil.get_terminal_size().columns), options.BASIC
    lines, topics = textwrap.wrap(description.partition("\n\n")[0], width), _topics(options)
    for topic, fields in topics.items():
        usual = sorted(
            (one for one in fields if one[0].name in basic), key=lambda one: basic.index(one[0].name)
        )
        entries = [_entry(*one, width) for one in usual]
        lines += ["", topic, *(line for entry in entries for line in entry)] if entries else []
    found = [f for fields in topics.values() for f, *_ in fields]
    needed = "".join(f" {f.name.upper()}" for f in found if _is_required(f))
    rest = f"{prog} --help-all shows all {len(found)} options by topic."
    return "\n".join([f"usage: {prog}{needed} [options]", "", *lines, "", rest])


def _topics(options: type) -> dict[str, list[tuple[Any, Any, str]]]:
    """Fields with their hints and docstrings, by the dataclass that holds them; those of the script come first."""
    found: dict[str, list[tuple[Any, Any, str]]] = {"options": []}
    hints, texts = get_type_hints(options), _docstrings(options)
    for f in dataclasses.fields(options):
        if dataclasses.is_dataclass(hints[f.name]):
            [inner] = _topics(hints[f.name]).values()
            found[f"{f.name} options"] = inner
        else:
            found["options"].append((f, hints[f.name], texts[f.name]))
    return found


def _docstrings(kind: type) -> dict[str, str]:
    """The string below each field of a dataclass, of its bases too."""
    found = {}
    for base in reversed([one for one in kind.__mro__ if dataclasses.is_dataclass(one)]):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(body, ast.ClassDef)
        for field, text in pairwise(body.body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                found[ast.unparse(field.target)] = " ".join(ast.literal_eval(text.value).split())
    return found


def _entry(f: Any, hint: Any, text: str, width: int) -> list[str]:
    """Name and kind on the left; what it is, its choices and its default on the right."""
    kinds, choices = _kinds(hint)
    first = _SENTENCE.split(text)[0]
    if not set(choices) <= set(_WORD.findall(first)):
        first = f"{_CLAUSE.split(text)[0].rstrip('.:;')}: {', '.join(choices)}."
    if "default" not in first and not _is_required(f) and f.default not in (None, ()) and kinds:
        shown = " ".join(map(str, f.default)) if isinstance(f.default, tuple) else f.default
        first += f" (default: {shown})"
    left = f"  {f.name.upper()}" if _is_required(f) else f"  {_flag(f.name)} {kinds}"
    if len(left) < LEFT:
        return _wrapped(f"{left:<{LEFT}}{first}", width)
    return [left, *_wrapped(" " * LEFT + first, width)]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent=" " * LEFT, break_on_hyphens=False)


def _kinds(hint: Any) -> tuple[str, tuple[str, ...]]:
    """Text after an option's name: its kind, or its choices."""
    inner = [one for one in get_args(hint) if one not in (type(None), Ellipsis)]
    if get_origin(hint) is Literal:
        return "NAME", get_args(hint)
    if get_origin(hint) is tuple:
        kinds, choices = _kinds(inner[0])
        return f"{kinds} ...", choices
    if inner:
        return _kinds(inner[0])
    return {bool: "", str: "TEXT"}.get(hint, hint.__name__.upper()), ()


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _is_required(f: Any) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
