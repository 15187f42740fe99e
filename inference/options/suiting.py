"""Choice of estimators for a program where the user has named none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyrovae as pv
from pyrovae.models.boltzmann.partition import LIMIT
from pyrovae.models.boltzmann.visible_units import BinaryUnits
from pyrovae.programs import declaration_of

from .applying import refuse_unasked
from .estimating import EstimatorOptions
from .rbm_parts import machine_of

BOUND_DRAWS = 100  # of a bound alone, which needs no thousands


def suited(run: pv.Run, options: EstimatorOptions, asked: tuple[Any, ...]) -> tuple[Any, ...]:
    """Default question to a run.

    Of a Boltzmann machine, exact evidence where it can be enumerated, and else that by AIS; of a program that is a
    bound and no density, as a diffusion in continuous time, that bound.
    """
    if options.estimators != EstimatorOptions().estimators:
        return asked
    machine = machine_of(run)
    if machine is not None:
        units = [len(machine.hidden_bias)]
        units += [len(machine.visible_bias)] if isinstance(machine.visible, BinaryUnits) else []
        if min(units) <= LIMIT:
            return (pv.Exact(),)
        return (pv.Normalised(betas=options.partition_temperatures, num_chains=options.partition_chains),)
    if declaration_of(run.model).density == "bound_only":
        typed = options.num_samples != EstimatorOptions().num_samples
        return (pv.ELBO(options.num_samples if typed else BOUND_DRAWS),)
    return asked


def check_asked(options: EstimatorOptions, found: Sequence[tuple[Any, ...]]) -> None:
    """Refuses options of estimators that are asked of none of the runs.

    Args:
        options: as typed.
        found: of each run, the estimators that `suited` gives.

    Raises:
        ValueError: naming the option, and what it belongs to.
    """
    if options.estimators != EstimatorOptions().estimators:
        return  # `refuse_unasked` has seen those, before a run was loaded
    names = {pv.ELBO: "elbo", pv.IS: "is", pv.Exact: "exact", pv.Normalised: "normalised"}
    refuse_unasked(options, list(dict.fromkeys(names[type(e)] for one in found for e in one)))
