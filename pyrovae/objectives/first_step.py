"""Demands of an objective on a program, checked in the program's first step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.infer import TraceEnum_ELBO, TraceMeanField_ELBO

from ..programs import module_mode
from ..programs.checks.dependencies import breaches_of, dependencies_of
from ..programs.checks.validity import deltas_in, masked_laws_in, traces_apart
from ..programs.watch.snapshot import Snapshot
from .beta import BetaELBO
from .check import refuse_breaches, refuse_deltas, refuse_masked_laws
from .free_bits import FreeBits


def check_first_step(
    objective: Any,
    model: Callable[..., Any],
    guide: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """Refuses what Pyro's objectives compute wrongly without a sign, once parameters exist.

    `TraceMeanField_ELBO` for a guide that breaks its condition, or whose Deltas have a density; `TraceEnum_ELBO` for
    enumerated latents under `.mask()`.

    The program runs some times more for it, in eval mode and under noise of its own, and its state is put back.

    Raises:
        ValueError: as `check_objective`.
    """
    name = type(objective).__name__
    while isinstance(objective, BetaELBO | FreeBits):
        objective = objective.base
    mean_field = isinstance(objective, TraceMeanField_ELBO)
    if not mean_field and not isinstance(objective, TraceEnum_ELBO):
        return
    state = Snapshot({"model": model, "guide": guide}, tensors=True)
    try:
        traces = traces_apart(model, guide, args, kwargs)
        if mean_field:
            with module_mode(model, guide, training=False):
                in_guide, in_model = (dependencies_of(fn, args, kwargs) for fn in (guide, model))
    finally:
        state.restore()
    if not mean_field:
        refuse_masked_laws(name, masked_laws_in(*traces))
        return
    refuse_deltas(name, deltas_in(traces[0]))
    refuse_breaches(name, breaches_of(in_guide, in_model))
