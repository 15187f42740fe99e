"""What an objective asks of a program, looked at in the program's first step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.infer import TraceMeanField_ELBO

from ..programs import module_mode
from ..programs.validity import breaches_of, dependencies_of
from ..programs.watching import Snapshot
from .beta import BetaELBO
from .check import refuse_breaches
from .free_bits import FreeBits


def check_first_step(
    objective: Any,
    model: Callable[..., Any],
    guide: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> None:
    """Refuses `TraceMeanField_ELBO` for a guide that breaks its condition, once parameters exist.

    The program runs some times more for it, in eval mode and under noise of its own, and its state is put back.

    Raises:
        ValueError: as `check_objective`.
    """
    name = type(objective).__name__
    while isinstance(objective, BetaELBO | FreeBits):
        objective = objective.base
    if not isinstance(objective, TraceMeanField_ELBO):
        return
    state = Snapshot({"model": model, "guide": guide}, tensors=True)
    try:
        with module_mode(model, guide, training=False):
            in_guide, in_model = (dependencies_of(fn, args, kwargs) for fn in (guide, model))
    finally:
        state.restore()
    refuse_breaches(name, breaches_of(in_guide, in_model))
