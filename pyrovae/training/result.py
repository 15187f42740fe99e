"""Result of `pv.fit`: a trained program, and what can be asked of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ..programs import ParameterStore
from ..runs.faces import data_text, training_text
from ..runs.saving import name_of, save
from ..runs.trained import Trained
from .logging.history import Row, write_history


@dataclass(frozen=True, eq=False, repr=False)
class Fit(Trained):
    """A trained program; its methods answer for the test split of its data, where they are given no other.

    Attributes:
        model, guide: the programs, bound to the fit's own parameters.
        store: those parameters.
        history: one row an epoch: loss (of the objective trained), the share of compiled steps, and at beta = 1 the
            ELBO, reconstruction, kl, active_units, and the same with prefix `valid_`; nats per datum. Boltzmann
            machines have the figures of `objectives.PhaseObjective` in place of the ELBO's.
        modules: the torch modules they run.
        best_epoch: the epoch whose weights were kept.
        timing: seconds of each epoch, metrics included; all that depends on the clock is here
            and in `seconds`.
        seconds: of training, metrics included, over all the pieces of a resumed run.
        compiled_share: compiled steps among all.
        refused: why steps were not compiled, where that was asked for.
        data: what it was trained on, as it was given.

    Example:
        >>> import pyrovae as pv
        >>> fit = pv.fit(model, guide, data)  # doctest: +SKIP
        >>> fit.evidence(), fit.embed(), fit.sample(100), fit.plot_training()  # doctest: +SKIP
    """

    model: Callable[..., Any]
    guide: Callable[..., Any]
    store: ParameterStore
    history: list[Row]
    modules: list[nn.Module]
    best_epoch: int
    timing: list[float]
    seconds: float
    compiled_share: float = 0.0
    refused: str | None = None
    data: Any = field(default=None)

    def _about(self) -> dict[str, str]:
        compiled = f"{self.compiled_share:.0%} of the steps" if self.compiled_share else "no steps"
        return {
            "program": " · ".join(name_of(fn) for fn in (self.model, self.guide)),
            "data": data_text(self.data),
            "parameters": repr(self.store),
            "training": training_text(self.history, self.best_epoch, self.seconds),
            "compiled": compiled + (f" ({self.refused})" if self.refused else ""),
        }

    def save(
        self, folder: str | os.PathLike[str], *, build: str | None = None, overwrite: bool = False
    ) -> Path:
        """`pv.save`: writes a run folder, for `pv.load` and the scripts."""
        return save(self, folder, data=self.data, build=build, overwrite=overwrite)

    def to_global_store(self) -> None:
        """Puts the trained parameters into Pyro's global store, where the original programs find them.

        In place of those of the same names. Parameters of modules are the modules' own; others are copies.
        """
        self.store.to_global()

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes the history, whole or not at all."""
        write_history(path, self.history)
