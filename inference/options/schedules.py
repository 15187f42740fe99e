"""Building of learning rates, their groups, and the KL weight over the epochs from options."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyrovae as pv
from pyrovae.training.schedules import Constant, Cosine, IWAEStages, Schedule

from .options import TrainOptions


@dataclass(frozen=True)
class Scaled:
    """A schedule times a factor."""

    schedule: Schedule
    factor: float

    def __call__(self, epoch: float) -> float:
        """The value at a (fractional) epoch."""
        return self.factor * self.schedule(epoch)


def schedules(options: TrainOptions) -> dict[str, Any]:
    """`lr`, `groups` and `beta` of `pv.fit`.

    Raises:
        ValueError: for a KL weight or warm-up below 0, a KL weight with renyi, or groups of another form.
    """
    rate = learning_rate(options)
    return {"lr": rate, "beta": kl_weight(options), "groups": groups(options.group, rate) or None}


def learning_rate(options: TrainOptions) -> Schedule:
    """The schedule of `--lr-schedule`, over all epochs."""
    start, end, epochs = options.lr, options.lr_end, options.lr_epochs or options.epochs
    if not 0 < start < math.inf or (end is not None and not 0 < end < math.inf):
        raise ValueError(
            f"expected finite learning rates > 0 (lr-end: or None), got lr {start} and lr-end {end}"
        )
    if epochs < 1:
        raise ValueError(f"expected epochs >= 1, got {epochs}")
    if options.lr_schedule == "cosine":
        return Cosine(start, epochs, end or 0.0)
    if options.lr_schedule == "iwae":
        # Eight stages of 3^i epochs make 3280; fewer epochs shrink all of them alike.
        return IWAEStages(start, unit=epochs / IWAEStages(start).epochs)
    if options.lr_schedule == "constant" or end is None:
        return Constant(start)
    return pv.Exponential(start, end, epochs)


def kl_weight(options: TrainOptions) -> float | Schedule:
    """beta: rises from 0 over the warm-up, then stays."""
    if not (0 <= options.beta < math.inf and 0 <= options.warmup < math.inf):
        raise ValueError(f"expected beta >= 0 and warmup >= 0, got {options.beta} and {options.warmup}")
    if options.objective in ("cd", "pcd", "tempering"):
        if options.beta != 1.0:
            raise ValueError(
                f"expected --beta 1 with {options.objective}, which has no KL, got {options.beta}"
            )
        return 1.0
    if options.objective == "renyi":
        if options.beta != 1.0:
            raise ValueError(
                f"expected --beta 1 with renyi, which has no KL weight, got {options.beta}; try iwae"
            )
        return 1.0
    return pv.Warmup(options.warmup, end=options.beta) if options.warmup > 0 else options.beta


def groups(given: tuple[str, ...], rate: Schedule) -> dict[str, dict[str, Schedule]]:
    """`("prior=0.1",)` as groups of `pv.fit`: a tenth of the learning rate for parameters of the prior.

    Raises:
        ValueError: for words that are not PREFIX=FACTOR with a finite factor >= 0, or a prefix given twice.
    """
    found: dict[str, dict[str, Schedule]] = {}
    for word in given:
        prefix, _, number = word.rpartition("=")
        try:
            factor = float(number)
        except ValueError:
            factor = math.nan
        if not prefix or not 0 <= factor < math.inf or f"{prefix}*" in found:
            raise ValueError(
                f"expected --group PREFIX=FACTOR, each prefix once and the factor >= 0, got {word!r}; try prior=0.1"
            )
        found[f"{prefix}*"] = {"lr": Scaled(rate, factor)}
    return found
