"""`pv.fit`: train a model/guide pair by stochastic variational inference."""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pyro.infer.elbo import ELBO as PyroELBO
from torch import nn

from ..files import replacing
from ..programs import ParameterStore
from .schedules import Schedule
from .trainer import Trainer

Row = dict[str, float]


@dataclass(frozen=True)
class Fit:
    """A trained program.

    Attributes:
        model, guide: the programs, bound to the fit's own parameters.
        store: those parameters.
        history: one row an epoch: loss (of the objective trained), and at beta = 1 the ELBO,
            reconstruction, kl, active_units, and the same with prefix `valid_`; nats per datum.
        modules: the torch modules they run.
        best_epoch: the epoch whose weights were kept.
        seconds: of training, metrics included.
    """

    model: Callable[..., Any]
    guide: Callable[..., Any]
    store: ParameterStore = field(repr=False)
    history: list[Row] = field(repr=False)
    modules: list[nn.Module] = field(repr=False)
    best_epoch: int
    seconds: float

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Writes the history, whole or not at all."""
        columns = list(dict.fromkeys(k for row in self.history for k in row))
        with replacing(path) as partial, partial.open("w", newline="") as f:
            writer = csv.DictWriter(f, columns)
            writer.writeheader()
            writer.writerows(self.history)


def fit(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    data: Any,
    *,
    valid: Any = None,
    objective: PyroELBO | None = None,
    optim: Any = None,
    lr: float | Schedule | None = None,
    epochs: int = 100,
    batch_size: int = 128,
    beta: float | Schedule = 1.0,
    free_bits: float = 0.0,
    patience: int | None = None,
    restore_best: bool = True,
    seed: int = 0,
    plate: str | None = None,
    metric_samples: int = 1,
    on_epoch: Callable[[Row], None] | None = None,
) -> Fit:
    """Trains by SVI; the fit has its own parameter store and its own noise.

    Args:
        model, guide: Pyro programs that keep the contract, their modules trained in place.
        data: of `pv.data.load`; or a tensor, or a tuple `(x, *context)`.
        valid: rows to validate on; default: the data set's own.
        objective: one of Pyro's ELBOs; default `Trace_ELBO()`. Refused where it would be
            silently wrong (see `pyrovae.objectives.check_objective`).
        optim: as in `pv.SVI`; default: Adam over all parameters.
        lr: learning rate, or a schedule of the epoch (torch optimizers). Default: that of `optim`,
            or 1e-3 where there is none.
        epochs: passes over the data.
        batch_size: data per step; a program that subsamples by itself sets its own.
        beta: KL weight, or a schedule of the epoch: `Warmup(20)`, `Cyclical(10)`.
        free_bits: nats per latent site below which its KL is not pressed.
        patience: stop after so many epochs without a better validation ELBO.
        restore_best: end with the weights of the best validation ELBO among epochs at the
            final beta (where there are validation data).
        seed: of initial parameters that the program creates, batch order and noise.
        plate: name of the data plate.
        metric_samples: samples per datum in the logged metrics.
        on_epoch: called with each logged row.

    Returns:
        `Fit`, its modules in the mode they came in.

    Raises:
        ValueError: for a pair that breaks the contract, an objective invalid for it, data
            outside the likelihood's support, or arguments out of range.
        FloatingPointError: for a loss that is NaN or infinite.
    """
    if epochs < 1:
        raise ValueError(f"expected epochs >= 1, got {epochs}")
    if patience is not None and patience < 1:
        raise ValueError(f"expected patience >= 1 epochs (or None), got {patience}")
    started = time.perf_counter()
    trainer = Trainer(
        model,
        guide,
        data,
        valid=valid,
        objective=objective,
        optim=optim,
        lr=lr,
        batch_size=batch_size,
        beta=beta,
        free_bits=free_bits,
        seed=seed,
        plate=plate,
        metric_samples=metric_samples,
    )
    if patience is not None and trainer.valid_program is None:
        raise ValueError(f"expected validation data with patience={patience}, got none; try valid=...")
    modes = [(m, m.training) for m in trainer.modules]
    history: list[Row] = []
    best, best_epoch, best_weights = -math.inf, 0, None
    try:
        while trainer.epoch < epochs:
            row = trainer.run_epoch()
            history.append(row)
            if on_epoch is not None:
                on_epoch(row)
            # While beta still changes, the true ELBO favours epochs the schedule has yet to leave.
            settled = row["beta"] == trainer.last_beta(epochs - 1)
            score = row.get("valid_elbo", -math.inf)
            if settled and score > best:
                best, best_epoch = score, trainer.epoch
                best_weights = trainer.weights()
            if patience is not None and settled and trainer.epoch - best_epoch >= patience and best_epoch:
                break
    finally:
        for module, mode in modes:
            module.training = mode
    if restore_best and best_weights is not None:
        trainer.load_weights(best_weights)
    else:
        best_epoch = trainer.epoch
    return Fit(
        trainer.model,
        trainer.guide,
        trainer.store,
        history,
        trainer.modules,
        best_epoch,
        time.perf_counter() - started,
    )
