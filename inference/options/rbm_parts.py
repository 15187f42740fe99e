"""Building of a restricted Boltzmann machine, its objectives and its evidence from option names."""

from __future__ import annotations

from typing import Any

import pyrovae as pv
from pyrovae.data import Dataset
from pyrovae.models.boltzmann import RBM
from pyrovae.models.boltzmann.visible_units import BinaryUnits, GaussianUnits
from pyrovae.objectives import ContrastiveDivergence, ParallelTempering, PersistentCD
from pyrovae.objectives.tempering import TEMPERATURES
from pyrovae.programs.modes import owners

from .applying import refuse_parts
from .options import ModelOptions, TrainOptions
from .pair import Pair

HIDDEN = 500
PHASES = ("cd", "pcd", "tempering")


def build_rbm(options: ModelOptions, data: Dataset) -> RBM:
    """The machine that the options name, at the base rates of the training data.

    Raises:
        ValueError: data that are neither binary nor real, several hidden layers, or options of the vae alone.
    """
    refuse_parts(options, ("guide", "prior", "latent_dim", "activation", "network"), "an rbm")
    hidden = options.hidden or (HIDDEN,)
    if len(hidden) > 1:
        raise ValueError(f"expected one --hidden number for an rbm, got {hidden}")
    support = data.spec.support
    if support not in ("binary", "real"):
        hint = (
            "--model vae" if support == "nonnegative_integer" else "--binarise static, dynamic or threshold"
        )
        raise ValueError(f"expected binary or real data for an rbm, got {support} data; try {hint}")
    visible = BinaryUnits() if support == "binary" else GaussianUnits(options.scale)
    return RBM.initialised_to(data.train.cpu(), hidden[0], visible)


def phase_objective(train: TrainOptions) -> Any:
    """The objective of `--objective cd`, `pcd` or `tempering`.

    Raises:
        ValueError: several particles, or numbers out of range.
    """
    if train.particles is not None:
        raise ValueError(
            f"expected no --particles with {train.objective}, got {train.particles}; try --gibbs-chains"
        )
    k, chains, exact = train.gibbs_steps, train.gibbs_chains, train.exact_likelihood
    if train.objective == "cd":
        return ContrastiveDivergence(k, exact=exact)
    if train.objective == "pcd":
        return PersistentCD(k, chains, exact=exact)
    return ParallelTempering(k, chains, train.ladder or TEMPERATURES, exact=exact)


def machine_of(pair: Pair | pv.Run) -> RBM | None:
    """The machine that the pair's model belongs to, its weights those of the run; None for other programs."""
    return next((m for m in owners(pair.model) if isinstance(m, RBM)), None)
