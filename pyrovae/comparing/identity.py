"""Identity of a cell that was given in Python: all that decides its numbers, as plain values for its run folder."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

from ..data import Dataset
from ..training import Trainer
from ..training.state.arguments import arguments_of, weights_of
from .cell import Cell
from .code import hash_of_code

_PLACE = re.compile(r" at 0x[0-9a-f]+")  # of an object without a repr of its own
TRAINER = set(inspect.signature(Trainer).parameters)


def identity(cell: Cell, data: Dataset) -> dict[str, Any]:
    """Name, objective, seed, options, data, estimators, initial weights and code of a cell, in JSON's types.

    Two cells whose identities are equal give the same numbers, as far as it can be told: code is looked at as
    `hash_of_code` does, and what it reads from files or from the clock is not.

    Raises:
        ValueError: as `pv.fit` for the arguments, before anything is trained.
    """
    model, guide = cell.program.build(data, cell.seed)
    code = hash_of_code(model, guide, weights=False)
    arguments = cell.arguments()
    own = {k: v for k, v in arguments.items() if k in TRAINER and k != "compile"}
    trainer = Trainer(model, guide, data, **own)
    rest = {k: v for k, v in arguments.items() if k not in TRAINER}
    about = arguments_of(trainer, **rest)
    about |= {
        "name": list(cell.label),
        "compile": arguments.get("compile", "auto"),
        "options": hash_of_code(cell.arguments())[:16],
        "test data": data.spec.hash[:16],
        "estimators": repr(list(cell.estimators)),
        "initial weights": weights_of(trainer),
        "code": code[:16],
    }
    plain: dict[str, Any] = json.loads(_PLACE.sub("", json.dumps(about, default=str)))
    return plain
