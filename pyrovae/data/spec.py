"""Description of a data set, in a form that fits into a checkpoint or a report."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args, get_type_hints

from torch.distributions import constraints

from ..json_files import check_kinds
from .tables.columns import Column
from .tables.standardization import Standardization

Support = Literal["binary", "levels", "unit_interval", "real", "nonnegative_integer", "mixed"]
Binarisation = Literal["dynamic", "static", "threshold", "fixed"]

IMAGE_SHAPES = {
    "digits": (8, 8),
    "mnist": (28, 28),
    "fashion-mnist": (28, 28),
    "binarized-mnist": (28, 28),
}
CHANNELS = (1, 3, 4)
KNOWN = "known labels"  # given in training alone: new data have none


@dataclass(frozen=True)
class DataSpec:
    """Description of a data set: what a likelihood, a report or a checkpoint has to know about it.

    Attributes:
        name: The name given to `load`, a file's name, or the kind of object the data came from.
        event_shape: Shape of one datum.
        support: Token of the set in which every value lies; `constraint` is torch's object for it.
        levels: Number of grey levels (values 0 ... levels - 1) where `support` is "levels", else None.
        binarisation: How the values became binary: "dynamic", "static", "threshold" or "fixed" (it came
            so), or None.
        seed: Seed of the splits and of the Bernoulli draws.
        hash: SHA-256 (hexadecimal) of the content, dtype and shape of all splits as they are stored.
        splits: Number of data in each split.
        columns: Names of a table's columns, or None.
        standardization: How parts see the columns, where that was asked for; the data themselves are in their own
            units.
        table: What each column of a table is, those left out of x included, where that was declared or guessed.
        missing: Split -> share of its numbers that are missing (NaN), where they may be.
        given: What programs take after x: "label", names of columns, "lengths"; empty where they take x alone.
        classes: Names of the classes 0, 1, ... of labels that programs are given, else None.
        label_column: Column that the labels stood in, where it was named.
        layer: Layer of an annotated matrix that the data are, in place of its X.

    Raises:
        ValueError: If a token is unknown, or `levels` is missing or superfluous.
    """

    name: str
    event_shape: tuple[int, ...]
    support: Support
    levels: int | None
    binarisation: Binarisation | None
    seed: int
    hash: str
    splits: dict[str, int] = field(hash=False)
    columns: tuple[str, ...] | None = None
    standardization: Standardization | None = None
    missing: dict[str, float] | None = field(default=None, hash=False)
    table: tuple[Column, ...] | None = None
    given: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    label_column: str | None = None
    layer: str | None = None

    def __post_init__(self) -> None:
        if self.support not in get_args(Support):
            raise ValueError(f"expected support to be one of {get_args(Support)}, got {self.support!r}")
        if self.binarisation is not None and self.binarisation not in get_args(Binarisation):
            raise ValueError(
                f"expected binarisation to be None or one of {get_args(Binarisation)}, "
                f"got {self.binarisation!r}"
            )
        if (self.levels is not None) != (self.support == "levels"):
            raise ValueError(
                f"expected levels exactly where support is 'levels', got levels={self.levels!r} "
                f"with support={self.support!r}"
            )

    @property
    def constraint(self) -> constraints.Constraint:
        """The support as a constraint of `torch.distributions`."""
        if self.support == "levels":
            assert self.levels is not None
            return constraints.integer_interval(0, self.levels - 1)
        return {
            "binary": constraints.boolean,
            "unit_interval": constraints.unit_interval,
            "real": constraints.real,
            "mixed": constraints.real,  # each column has its own, by its role
            "nonnegative_integer": constraints.nonnegative_integer,
        }[self.support]

    @property
    def image_shape(self) -> tuple[int, int] | None:
        """Height and width in pixels where the data are images, else None."""
        shape = self.event_shape
        if "lengths" in self.given:
            return None
        if self.name == "ising" and len(shape) == 1:
            return (math.isqrt(shape[0]), math.isqrt(shape[0]))
        known = IMAGE_SHAPES.get(self.name)
        if known is not None and shape == (math.prod(known),):
            return known
        if len(shape) == 2:
            return (shape[0], shape[1])
        if len(shape) == 3 and shape[0] in CHANNELS:
            return (shape[1], shape[2])
        if len(shape) == 3 and shape[2] in CHANNELS:
            return (shape[0], shape[1])
        return None

    @property
    def conditions(self) -> str:
        """Words behind the bar of ln p(x | ...); labels that are partly known do not stand there."""
        return ", ".join(name for name in self.given if name != KNOWN)

    def heading(self, split: str, num_data: int, draws: int | None = None, part: str = "") -> str:
        """Title of a comparison: data, what is given, unit and draws; `part`: words for what of the split it is."""
        given = f", given {self.conditions}" if self.conditions else ""
        drawn = "" if draws is None else f", IS with K = {draws:,}"
        return f"{self.name}, {part}{split} split (N = {num_data:,}){given}, nats per datum{drawn}"

    def title(self, split: str, num_data: int | None = None) -> str:
        """Name, split, binarisation and what is given, for titles; `num_data`: how many of the split, where not all."""
        how = f", {self.binarisation} binarisation (seed {self.seed})" if self.binarisation else ""
        part = "" if num_data in (None, self.splits[split]) else f"{num_data:,} drawn from the "
        given = f", given {self.conditions}" if self.conditions else ""
        return f"{self.name}, {part}{split} split{how}{given}"

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary of JSON types; `from_json` is its inverse."""
        columns = None if self.columns is None else list(self.columns)
        units = None if self.standardization is None else self.standardization.to_json()
        own: dict[str, Any] = {
            "event_shape": list(self.event_shape),
            "columns": columns,
            "standardization": units,
        }
        own["table"] = None if self.table is None else [c.to_json() for c in self.table]
        own["classes"] = None if self.classes is None else list(self.classes)
        return asdict(self) | own | {"given": list(self.given)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "DataSpec":
        """Specification from the dictionary that `to_json` gave.

        Raises:
            ValueError: If keys are missing or unknown, or a value is not allowed.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"expected a data specification by names, got {values!r:.80}")
        expected = {f.name for f in fields(cls)}
        # Older runs do not have these.
        values = {
            "columns": None,
            "standardization": None,
            "missing": None,
            "table": None,
            "given": (),
            "classes": None,
            "label_column": None,
            "layer": None,
            **values,
        }
        if set(values) != expected:
            raise ValueError(
                f"expected the keys {sorted(expected)} of a data specification, got {sorted(values)}"
            )
        check_kinds(values, get_type_hints(cls), "a data specification")
        sizes = [*values["event_shape"], *values["splits"].values()]
        if "train" not in values["splits"] or any(type(n) is not int or n < 0 for n in sizes):
            raise ValueError(
                f"expected sizes >= 0 and a split train, got {sizes} and {list(values['splits'])}"
            )
        units, missing, table = values["standardization"], values["missing"], values["table"]
        return cls(
            **{
                **values,
                "event_shape": tuple(int(n) for n in values["event_shape"]),
                "columns": None if values["columns"] is None else tuple(str(c) for c in values["columns"]),
                "standardization": None if units is None else Standardization.from_json(units),
                "table": None if table is None else tuple(Column.from_json(c) for c in table),
                "missing": None if missing is None else {str(k): float(v) for k, v in missing.items()},
                "given": tuple(str(c) for c in values["given"]),
                "classes": None if values["classes"] is None else tuple(str(c) for c in values["classes"]),
                "splits": {str(k): int(n) for k, n in values["splits"].items()},
            }
        )
