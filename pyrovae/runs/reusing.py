"""Former evaluations of a run folder: whether one answers a question, and under which name one is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..evidence import ELBO, IS, Evidence
from ..evidence.data_hash import data_hash
from .consent import BUILT_IN, find
from .folder import program_hash
from .run import Run


def found_in(
    run: Run, rows: tuple[Tensor, ...], asked: Sequence[Any], seed: int, delta: float
) -> Evidence | None:
    """The run's evidence.nc, if it answers this very question: of these weights, data, estimators, seed and delta."""
    try:
        ev = run.stored_evidence
    except ValueError:  # damaged: it is written anew
        return None
    if (
        ev is None
        or not {"weights_hash", "measure"} <= set(ev.attributes)
        or ev.attributes.get("code") != code_of(run)
        or [e.name for e in asked] != list(ev)
    ):
        return None
    # A file that does not say what was asked is of ELBO and IS alone.
    samples = ev["IS"].num_samples if "IS" in ev else None
    default = repr([ELBO(), IS(samples)]) if samples else ""
    wanted = (data_hash(*rows), repr(asked), seed, delta)
    answered = (
        ev.attributes.get("data_hash"),
        ev.attributes.get("asked", default),
        ev.attributes.get("seed"),
        next((e.delta for e in ev.values() if e.certificate is not None), delta),
    )
    return ev if wanted == answered else None


def marked(ev: Evidence, run: Run, asked: Sequence[Any], split: str) -> Evidence:
    """The evidence with what it is of: weights as they were loaded, program, code, split and question."""
    own = {"weights_hash": run.weights_hash, "program_hash": program_hash(run.config), "code": code_of(run)}
    own |= {"split": split, "asked": repr(list(asked))}
    return replace(ev, attributes={**ev.attributes, **own})


def code_of(run: Run) -> str | None:
    """Hash of the user's code that a run's program is built by: weights alone do not say what it computes."""
    options = run.config.get("model")
    reference = str(options.get("model")) if isinstance(options, dict) else ""
    return None if not reference or reference in BUILT_IN else find(reference).key()


def name_of(run: Run, num_data: int) -> str:
    """Name of the files: `evidence`, but a look at some data does not take the place of an evaluation of more."""
    try:
        found = run.stored_evidence
    except ValueError:  # damaged: nothing is lost
        found = None
    more = found is not None and len(found.x) > num_data
    return f"evidence-{num_data}" if more else "evidence"
