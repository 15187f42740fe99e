"""A run folder as an object."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..data import DataSpec
from ..evidence import Evidence
from ..programs import ParameterStore
from ..results import Row
from .data import Data, check_same, check_sizes, load_again, moved
from .evidence_file import TEST, read_evidence, split_of
from .faces import spec_text, training_text
from .folder import EVIDENCE, HISTORY, program_hash
from .history import read_history
from .trained import Trained

_OF_A_SPLIT = re.compile(r"evidence(-(train|valid))?\.nc")


@dataclass(frozen=True, eq=False, repr=False)
class Run(Trained):
    """A trained program and what its folder says of it; of `pv.load`.

    Its methods answer for the test split of its data, where they are given no other.

    Attributes:
        folder: where it is.
        config: its config.json.
        spec: what it was trained on.
        model, guide: the programs, bound to the run's own parameters.
        store: those parameters.
        modules: the torch modules they run.
        device: where they are.
        weights_hash: of the weights as they were loaded; results carry it.
        code: hash of the user's code that built it, as it was when it was loaded; None for programs of the library.

    Example:
        >>> import pyrovae as pv
        >>> run = pv.load("runs/train")  # doctest: +SKIP
        >>> run.evidence(), run.embed(), run.reconstruct(), run.history  # doctest: +SKIP
    """

    folder: Path
    config: dict[str, Any]
    spec: DataSpec
    model: Callable[..., Any]
    guide: Callable[..., Any]
    store: ParameterStore
    modules: list[nn.Module]
    device: torch.device
    weights_hash: str
    given: Data | None = field(default=None, repr=False)
    root: str | os.PathLike[str] | None = field(default=None, repr=False)
    code: str | None = field(default=None, repr=False)

    @cached_property
    def data(self) -> Any:
        """The data it was trained on: a `Dataset`, or the tensors given to `pv.load`; loaded when asked for.

        Raises:
            FileNotFoundError: their files are not there.
            ValueError: they came from the user and were not given to `pv.load`, or are others now.
        """
        if self.given is not None:
            return self.given
        source = self.config.get("data")
        if not isinstance(source, dict):
            raise ValueError(
                f"expected data that can be loaded by name, got a run on a {self.spec.name} of your own in "
                f"{self.folder}; try pv.load({str(self.folder)!r}, ..., data=...)"
            )
        check_sizes(self.spec, source, self.folder)
        data = load_again(source, self.root, self.folder)
        check_same(self.spec, data, self.folder, self.config)
        return moved(data, self.device)

    @cached_property
    def history(self) -> list[Row]:
        """One row an epoch, as in `Fit.history`.

        Raises:
            FileNotFoundError, ValueError: metrics.csv is not there, or damaged.
        """
        return read_history(self.folder / HISTORY)

    @property
    def best_epoch(self) -> int | None:
        """The epoch whose weights were kept; None where the folder does not say."""
        value = self.config.get("best_epoch")
        return value if isinstance(value, int) else None

    @property
    def stored_evidence(self) -> Evidence | None:
        """Evidence of the test split that `evaluate` found for this very program, code and weights, from evidence.nc.

        None where there is none. Of other splits it is in files of their names: evidence-train.nc.

        Raises:
            ValueError: a damaged file.
        """
        ev = self.evidence_in(self.folder / EVIDENCE)
        return None if ev is None or split_of(ev) != TEST else ev

    def evidence_in(self, path: Path) -> Evidence | None:
        """Evidence in a file, of whatever split it says; None where there is none of this program and weights.

        Raises:
            ValueError: a damaged file.
        """
        if not path.is_file():
            return None
        ev = read_evidence(path)
        return ev if self.is_of(ev.attributes) else None

    @property
    def identity(self) -> dict[str, str | None]:
        """Hashes of its weights, of what config.json says of the program, and of the user's code."""
        return {
            "weights_hash": self.weights_hash,
            "program_hash": program_hash(self.config),
            "code": self.code,
        }

    def is_of(self, attributes: Mapping[str, Any]) -> bool:
        """Whether a result is of this program and its weights, by what it says; files of before say less."""
        return all(attributes.get(k, v) == v for k, v in self.identity.items())

    @property
    def label(self) -> tuple[str, str, str]:
        """(prior, guide, objective) of a built-in VAE; else (program, guide's name, objective), "–" if unknown."""
        options, train = self.config.get("model") or {}, self.config.get("train") or {}
        objective = str(train.get("objective", "–"))
        if options.get("model") in ("vae", "conditional", "semi-supervised"):
            preset = options.get("preset")  # which says what is not said
            prior, guide = options.get("prior"), options.get("guide")
            own = "given" if options.get("model") == "conditional" else "standard"
            return str(prior or preset or own), str(guide or preset or "diagonal"), objective
        names = self.config.get("program") or [options.get("model", "–"), "–"]
        return str(names[0]), str(names[1]), objective

    @property
    def seconds(self) -> float | None:
        """Duration of training in seconds; None where the folder does not say."""
        value = self.config.get("seconds")
        return float(value) if isinstance(value, int | float) else None

    def _about(self) -> dict[str, str]:
        try:
            history = self.history
        except (OSError, ValueError):  # a repr is for looking at what is there
            history = []
        return {
            "folder": str(self.folder),
            "program": " · ".join(self.label),
            "data": spec_text(self.spec),
            "parameters": f"{self.store!r} on {self.device}",
            "training": training_text(history, self.best_epoch, self.seconds) or f"no readable {HISTORY}",
            "stored evidence": _evidence(self),
        }


def _evidence(run: Run) -> str:
    found: list[tuple[str, Evidence]] = []
    try:
        for path in sorted(run.folder.glob("evidence*.nc"), key=lambda p: p.name != EVIDENCE):
            ev = run.evidence_in(path) if _OF_A_SPLIT.fullmatch(path.name) else None
            found += [] if ev is None else [(path.name, ev)]
    except (OSError, ValueError) as error:
        return str(error)
    tested = [repr(ev.best) for _, ev in found if split_of(ev) == TEST]
    if tested:
        return tested[0]
    others = "; ".join(f"{name} is of the {split_of(ev)} split" for name, ev in found)
    return (
        f"none yet{' of the test split' * bool(others)} (try: pyrovae evaluate){f'; {others}' * bool(others)}"
    )
