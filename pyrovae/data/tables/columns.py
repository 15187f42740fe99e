"""Roles of a table's columns: declared by the user, and kept with the data."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ...files import expanded
from ...text import meant

Role = Literal["real", "positive", "count", "binary", "category", "ordinal", "label", "ignore"]
ROLES: tuple[str, ...] = get_args(Role)
NAMED = ("category", "ordinal")
COUNTED = ("count", "levels", "nonnegative_integer")  # a role, and supports of data without roles
LABEL_NAMES = ("label", "labels")  # of columns that are guessed to be the label
Declared = dict[str, tuple[str, tuple[str, ...] | None]]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its name.
        role: "real", "positive", "count" (whole numbers >= 0), "binary", "category", "ordinal"; a "label" is kept
            beside the data, and what is to be "ignore"d left out.
        words: what its codes 0, 1, ... stand for, where it has categories or two words.
        guessed: whether the role was guessed.

    Raises:
        ValueError: a role that is not known, or categories without two words.
    """

    name: str
    role: str
    words: tuple[str, ...] | None = None
    guessed: bool = False

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(
                f"expected a role among {', '.join(ROLES)} for column {self.name!r}, got {self.role!r}"
            )
        if self.role in NAMED and len(self.words or ()) < 2:
            raise ValueError(
                f"expected at least two different values in the {self.role} column {self.name!r}, got "
                f"{list(self.words or ())}; try to ignore it"
            )

    @property
    def is_feature(self) -> bool:
        """Whether it is part of x."""
        return self.role not in ("label", "ignore")

    @property
    def categories(self) -> int:
        """Number of categories; 0 for a number."""
        return len(self.words or ()) if self.role in NAMED else 0

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary of JSON types; `from_json` is its inverse."""
        words = None if self.words is None else list(self.words)
        return {"name": self.name, "role": self.role, "words": words, "guessed": self.guessed}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Column:
        """The column that `to_json` gave.

        Raises:
            ValueError: other keys, or values that are none.
        """
        if not isinstance(values, Mapping) or set(values) != {"name", "role", "words", "guessed"}:
            raise ValueError(f"expected name, role, words and guessed of a column, got {values!r}")
        words = values["words"]
        return cls(
            str(values["name"]),
            str(values["role"]),
            None if words is None else tuple(map(str, words)),
            bool(values["guessed"]),
        )


def declared(columns: Any) -> Declared | None:
    """Roles (and the order of ordinal words) that the user gives: None for none, {} where all are to be guessed.

    Args:
        columns: None; "auto"; a mapping from names to roles, or to {"role": ..., "order": [...]}; the path of a TOML
            file with such lines, or its text.

    Raises:
        ValueError: none of these, or a role that is not known.
        FileNotFoundError: no such file.
    """
    if columns is None:
        return None
    if isinstance(columns, str | Path):
        columns = {} if str(columns) == "auto" else _read(str(columns))
    if not isinstance(columns, Mapping):
        raise ValueError(
            f"expected columns as 'auto', a .toml file or a mapping from names to roles, got {type(columns).__name__}"
        )
    return {str(name): _role(str(name), given) for name, given in columns.items()}


def line_of(columns: str) -> str:
    """The roles that a TOML file (or its text) gives, in one line of JSON, which `declared` takes; "auto" stays.

    Raises:
        ValueError: text that is none.
        FileNotFoundError: no such file.
    """
    return columns if columns == "auto" else json.dumps(_read(columns))


def _read(columns: str) -> Mapping[str, Any]:
    text = columns
    if columns.endswith(".toml") and "\n" not in columns:
        path = expanded(columns)
        if not path.is_file():
            raise FileNotFoundError(f"expected a file of column roles at {path}, found none")
        text = path.read_text(encoding="utf-8")
    try:
        found: Any = json.loads(text) if text.lstrip().startswith("{") else tomllib.loads(text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"expected columns as 'auto', a .toml file or lines such as age = \"real\", got {text[:60]!r} ({error})"
        ) from None
    return dict(found)


def _role(name: str, given: Any) -> tuple[str, tuple[str, ...] | None]:
    order = None
    if isinstance(given, Mapping):
        if "role" not in given or not set(given) <= {"role", "order"}:
            raise ValueError(f"expected role (and order) of column {name!r}, got {dict(given)}")
        given, order = given["role"], given.get("order")
    if given not in ROLES:
        hint = meant(str(given), ROLES) or "try one of these"
        raise ValueError(
            f"expected a role among {', '.join(ROLES)} for column {name!r}, got {given!r}; {hint}"
        )
    if order is not None and (
        given not in NAMED or isinstance(order, str) or not isinstance(order, Sequence)
    ):
        raise ValueError(
            f"expected a list of words as the order of an ordinal column, got {order!r} for {name!r}"
        )
    return given, None if order is None else tuple(map(str, order))


def features(table: Sequence[Column]) -> tuple[Column, ...]:
    """The columns that make x."""
    return tuple(c for c in table if c.is_feature)
