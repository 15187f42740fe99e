"""One cell of a comparison: a program, an objective and a seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ..data import Dataset
from ..evidence import Evidence
from ..training import Fit
from ..training.logging.history import Row

Pair = tuple[Callable[..., Any], Callable[..., Any]]


class Program(Protocol):
    """Builder of a cell's model and guide. Cells of one program have equal ones."""

    def build(self, data: Dataset, seed: int) -> Pair:
        """A new model and guide, whose weights no other call has; the global random state stays as it is."""


@dataclass(frozen=True, eq=False)
class Cell:
    """A program, an objective and a seed.

    Attributes:
        label: what the table says of it, the objective last: (prior, guide, objective), say. One row has one label.
        seed: of weights, batches, noise and evidence.
        program: gives model and guide.
        arguments: gives the arguments of `pv.fit`, objective and seed among them, new at each call.
        estimators: of the evidence.
        out: its run folder; None: nothing is written.
        config: what its run folder says of it, by which another cell's is told apart. JSON's types alone.
        code: reference of the user's own code that it runs, if it has one.
        slow: sorts the cells that take longest to the front.
        format: of the pictures in its run folder.
    """

    label: tuple[str, ...]
    seed: int
    program: Program
    arguments: Callable[[], dict[str, Any]]
    estimators: tuple[Any, ...]
    out: Path | None = None
    config: dict[str, Any] = field(default_factory=dict)
    code: str | None = None
    slow: tuple[bool, ...] = ()
    format: str = "png"

    @property
    def title(self) -> str:
        """The label in one string."""
        return " ".join(filter(None, self.label))

    @property
    def plate(self) -> str | None:
        """Name of the plate over data, where `pv.fit` is told it."""
        plate: str | None = self.arguments().get("plate")
        return plate


@dataclass(frozen=True)
class Weights:
    """A fit that comes from another process: all but its programs, and the weights that these had."""

    tensors: dict[str, Tensor]
    about: dict[str, Any]


@dataclass(frozen=True)
class CellResult:
    """Results of a cell.

    Attributes:
        evidence: on the test split.
        history: of its training.
        seconds: of training and evaluation.
        unwritten: why files could not be written.
        trained: the fit, where it is in no run folder.
    """

    evidence: Evidence
    history: list[Row]
    seconds: float
    unwritten: tuple[str, ...] = ()
    trained: Fit | Weights | None = field(default=None, repr=False)
