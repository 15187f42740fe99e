"""Whether a program takes all samples at once, and the form in which it does."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pyro
import torch

from ..idioms.folding import calls_of, folded
from ..inspection import Program
from ..watch.undisturbed import NumbersTaken
from .alone import AloneError, agree

OTHER_NUMBERS = "other numbers"


def broadcasting(program: Program) -> tuple[Program, str | None]:
    """The program in a form that broadcasts over samples, or as it is with the reason why it does not.

    A vectorised run has to give each sample the log-weights that it has when run alone. An exception is not the only
    sign: a reshape can mix particles with data in silence, so the numbers are compared. Pyro's validation is off: a
    guide that draws outside of the prior's support has no density there, which says nothing of how it broadcasts.
    """
    with pyro.validation_enabled(False):
        taken: list[Any] = []
        why = _fault(program, taken)
        program = replace(program, takes=bool(taken))
        if why is None:
            return program, None
        args = program.arguments
        if args.calling == "sliced" and args.num_data > 1:
            few = (2, 3) if args.num_data > 2 else (1, 2)

            def run(n: int) -> None:
                with program.on(torch.arange(n, device=args.x.device)) as given:
                    program.traces(given, None)

            try:
                calls = calls_of(run, few)
            except Exception:
                calls = {}
            changed = replace(program, model=folded(program.model, calls), guide=folded(program.guide, calls))
            if calls and _fault(changed) is None:
                return changed, None
    if why == OTHER_NUMBERS:
        warnings.warn(
            f"this program gives {why} when samples are vectorised over a particle plate; "
            "samples must be run one at a time (slower). Use negative dims and `...` indexing to vectorise",
            stacklevel=3,
        )
    return program, why


def _fault(program: Program, taken: list[Any] | None = None) -> str | None:
    """Why a program does not broadcast; None if it does."""
    args = program.arguments
    indices = args.chunks(2)[0]
    try:
        with NumbersTaken((taken if taken is not None else []).append):
            if args.calling == "sliced" and len(indices) > 1:
                # A chunk may be one datum, where x.squeeze() drops the dim of the data.
                program._run(indices[:1], 3)
            vector = program._run(indices, 3)
        vector.log_weights()
    except Exception as error:
        return _in_words(error)
    try:
        return None if agree(program, indices, vector, range(3)) else OTHER_NUMBERS
    except AloneError as error:
        assert isinstance(error.__cause__, Exception)
        return _in_words(error.__cause__)


def _in_words(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text[:120]}"
