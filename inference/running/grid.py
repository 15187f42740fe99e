"""The grid of `compare`: cells of programs that options name."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyrovae as pv
from pyrovae import runs
from pyrovae.comparing import Cell, Pair, folder_of
from pyrovae.data import Dataset

from ..options.applying import refuse_unused, without_sizes
from ..options.building import build
from ..options.machine import FormatName
from ..options.options import (
    DataOptions,
    GuideName,
    LoopOptions,
    ModelOptions,
    ObjectiveName,
    PriorName,
    SizeOptions,
    TrainOptions,
)
from .work import fit_options, plain_options


@dataclass(frozen=True)
class Named:
    """A program that options name."""

    options: ModelOptions

    def build(self, data: Dataset, seed: int) -> Pair:
        """A new model and guide, their weights drawn under the seed."""
        return build(self.options, data, seed)

    @property
    def slow(self) -> tuple[bool, bool]:
        """Whether it takes longest: a flow's density under a VampPrior does, by far."""
        return self.options.guide in ("flow", "spline-flow"), self.options.prior == "vamp"


def estimators_of(num_samples: int, tolerance: float | None) -> tuple[Any, ...]:
    """Estimators of a comparison."""
    own = () if tolerance is None else (pv.Adaptive(tolerance),)
    return (pv.ELBO(), pv.IS(num_samples), *own)


def make_cells(
    data: DataOptions,
    sizes: SizeOptions,
    loop: LoopOptions,
    *,
    priors: tuple[PriorName, ...],
    guides: tuple[GuideName, ...],
    objectives: tuple[ObjectiveName, ...],
    programs: tuple[str, ...],
    out: Path,
    estimators: tuple[Any, ...],
    seeds: int = 1,
    format: FormatName = "png",
) -> list[Cell]:
    """The product priors x guides x objectives, then each program of the user's x objective; each for all seeds.

    Args:
        data, sizes, loop: options that all cells share.
        priors, guides, objectives: of the grid.
        programs: references of the user's own.
        out: folder of the comparison.
        estimators: of the evidence.
        seeds: how many, from that of `loop` on.
        format: of pictures.

    Raises:
        ValueError: no cell, one twice, or options that none of them has.
    """
    same = dataclasses.asdict(sizes)
    if data.labelled is not None and (priors and guides):
        raise ValueError(
            "expected no --labelled for a grid, whose objectives are of one kind, got it; try train --model "
            "semi-supervised, and compare --only-runs --runs"
        )
    kind = "conditional" if data.condition else "vae"
    models = [ModelOptions(**same, model=kind, prior=p, guide=g) for p in priors for g in guides]
    grid = list(models)
    models += [without_sizes(reference) for reference in programs]
    trains = [TrainOptions(**dataclasses.asdict(loop), objective=objective) for objective in objectives]
    refuse_unused(grid or models, trains)
    for train in trains:
        fit_options(train)  # refuses before anything is trained, and not in each cell
    cells = []
    for model in models:
        vae = model.model in ("vae", "conditional")
        parts = (model.prior or "", model.guide or "") if vae else (model.model, "")
        for train in trains:
            for seed in range(loop.seed, loop.seed + seeds):
                seeded = dataclasses.replace(train, seed=seed)
                cells.append(
                    Cell(
                        (*parts, train.objective),
                        seed,
                        Named(model),
                        functools.partial(fit_options, seeded),
                        estimators,
                        folder_of(out, (*parts, train.objective), seed if seeds > 1 else None),
                        plain_options(data, model, seeded),
                        None if model.model in runs.BUILT_IN else model.model,
                        Named(model).slow,
                        format,
                    )
                )
    if not cells or len({c.out for c in cells}) < len(cells):
        names = [c.out.name for c in cells if c.out is not None]
        raise ValueError(f"expected at least one cell and none twice, got {names}")
    return cells
