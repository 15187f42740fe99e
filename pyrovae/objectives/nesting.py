"""Depth of plates, told to Pyro's objectives before their first step."""

from __future__ import annotations

import copy
import math
from typing import Any

from pyro.infer import TraceEnum_ELBO

from ..programs import Program


def with_nesting(objective: Any, program: Program) -> Any:
    """`objective` with the `max_plate_nesting` of the program, where it has none and runs particles or sums in plates.

    Pyro would guess it in the first step of each process, by a run of the program whose draws move the generator: a
    run that is resumed would go on under other noise than one that was never interrupted.

    Pyro's own objectives are copied, so that each fit has the depth of its own program.
    """
    base = getattr(objective, "base", None)
    if base is not None:
        known = with_nesting(base, program)
        if known is not base:
            objective = copy.copy(objective)
            objective.base = known
        return objective
    plates = getattr(objective, "vectorize_particles", False) or isinstance(objective, TraceEnum_ELBO)
    if not plates or getattr(objective, "max_plate_nesting", None) != math.inf:
        return objective
    if type(objective).__module__.startswith("pyro."):
        objective = copy.copy(objective)
    particles = objective.vectorize_particles and objective.num_particles > 1
    objective.max_plate_nesting = program.max_plate_nesting + int(particles)
    return objective
