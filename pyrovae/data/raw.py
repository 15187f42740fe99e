"""Splits that a source of data hands to `load`, and what is known of them, not yet checked as a whole."""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .spec import Binarisation, Support
from .tables.columns import Column, Declared

Size = int | float


@dataclass(frozen=True)
class Request:
    """Wishes of the user for a source; each source refuses those that it cannot grant."""

    root: str | os.PathLike[str] | None
    valid: Size | None
    test: Size | None
    seed: int
    download: bool
    train: int | None = None
    L: int | None = None
    T: float | Sequence[float] | Tensor | None = None
    missing: bool = False
    columns: Declared | None = None
    label_column: str | None = None
    layer: str | None = None

    def refuse_simulation(self, name: str) -> None:
        """Refuse the options of a simulated torus, for a source that is none.

        Raises:
            ValueError: If the user gave one.
        """
        for option in ("train", "L", "T"):
            value = getattr(self, option)
            if value is not None:
                raise ValueError(
                    f"expected {option}=None, since {name!r} is not simulated on a torus, got "
                    f"{option}={value!r}; try to leave it out, or load('ising')"
                )

    def refuse_sizes(self, name: str, *splits: str) -> None:
        """Refuse a size for splits that are fixed by the source.

        Raises:
            ValueError: If the user gave one.
        """
        for split in splits:
            size = getattr(self, split)
            if size is not None:
                raise ValueError(
                    f"expected {split}=None, since {name!r} comes with its own {split} split, "
                    f"got {split}={size!r}; try to leave it out"
                )


@dataclass(frozen=True, eq=False)
class Raw:
    """Splits of a source, float32 or float64 `[N, *event_shape]` each, with their support if it is known."""

    name: str
    splits: dict[str, Tensor]
    support: Support | None = None
    levels: int | None = None
    binarisation: Binarisation | None = None
    labels: dict[str, Tensor] | None = None
    rows: dict[str, Tensor] | None = None
    log_evidence: dict[str, Tensor] | None = None
    parameters: dict[str, Tensor] | None = None
    columns: tuple[str, ...] | None = None
    table: tuple[Column, ...] | None = None
    classes: tuple[str, ...] | None = None
    lengths: dict[str, Tensor] | None = None
    label_column: str | None = None
    names: dict[str, tuple[str, ...]] | None = None

    def replace(self, **changes: Any) -> "Raw":
        """Copy with some fields changed."""
        return dataclasses.replace(self, **changes)
