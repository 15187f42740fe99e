"""Arguments that two runs must share for one to continue the other."""

from __future__ import annotations

from typing import Any

from ...programs import tensors_in
from ...programs.arguments.marks import others_in
from ..schedules import Schedule
from ..trainer import Trainer
from .checkpoint import hash_of_rows

# Schedules are functions: they are told apart by their values here.
EPOCHS = (0, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 3000)


def arguments_of(trainer: Trainer, **others: Any) -> dict[str, Any]:
    """Plain values that are equal for equal runs; `others` are taken as they are."""
    return {
        "seed": trainer.seed,
        "data": _data_hash(trainer),
        "batch_size": trainer.batch_size,
        "objective": _objective(trainer),
        "optimizer": _optimizer(trainer),
        "lr": None if trainer.lr is None else _values(trainer.lr),
        "groups": [None if s is None else _values(s) for s in trainer.rates.own],
        "beta": _values(trainer.beta),
        "ema": None if trainer.average is None else trainer.average.decay,
        "metric_samples": trainer.metric_samples,
        "compiled": trainer.compiled,
        # The number of ranks changes no more than rounding, unless that is what was asked for.
        "bitwise micro-batches": trainer.split.parts if trainer.split and trainer.split.bitwise else None,
        **others,
    }


def weights_of(trainer: Trainer) -> str:
    """A hash of parameters and buffers as they are."""
    weights = trainer.weights()
    return hash_of_rows(tuple(weights["parameters"].values()), tuple(weights["buffers"].values()))[:16]


def _data_hash(trainer: Trainer) -> str:
    spec = getattr(trainer.source.dataset, "spec", trainer.source.stream)
    known = getattr(spec, "hash", None)
    if not isinstance(known, str):
        known = "tensors"
    source = trainer.source
    content = hash_of_rows(
        *(None if r is None else tuple(tensors_in(r)) for r in (source.train, source.valid))
    )
    other = "" if source.plain else f" {others_in(source.train)}"
    if trainer.given:
        names = sorted(trainer.given)
        other += f" given {names} {hash_of_rows(tuple(trainer.given[n] for n in names))[:16]}"
    return f"{known[:16]} {content[:16]}{other}"


def _values(schedule: Schedule) -> list[float | None]:
    values: list[float | None] = []
    for epoch in EPOCHS:
        try:
            values.append(float(schedule(epoch)))
        except (ArithmeticError, LookupError, ValueError):  # beyond the end of a user's own
            values.append(None)
    return values


def _objective(trainer: Trainer) -> list[Any]:
    found: list[Any] = []
    at: Any = trainer.objective
    while at is not None:
        plain = {
            k: list(v) if isinstance(v, tuple) else v
            for k, v in getattr(at, "__dict__", {}).items()
            if isinstance(v, bool | int | float | str | tuple)
            and k not in ("beta", "max_plate_nesting")
            and k[0] != "_"
        }
        found += [type(at).__name__, plain]
        at = getattr(at, "base", None)
    return found


def _optimizer(trainer: Trainer) -> list[Any]:
    optimizer = trainer.svi.optimizer
    if optimizer is None:
        given = trainer.svi.optim
        options = given.pt_optim_args
        return [given.pt_optim_constructor.__name__, options if isinstance(options, dict) else "by parameter"]
    groups = [
        {k: v for k, v in g.items() if k not in ("params", "lr") and not k.startswith("initial")}
        | {"params": len(g["params"])}
        for g in optimizer.param_groups
    ]
    return [type(optimizer).__name__, groups]
