"""A grid of fits: one cell trains, evaluates and keeps one program; cells run side by side."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import torch

import pyrovae as pv
from pyrovae import export, runs
from pyrovae.data import Dataset
from pyrovae.objectives import check_objective
from pyrovae.programs import Measure, ParameterStore, check_alike, inspect_program
from pyrovae.programs.validity import closed_form_kl
from pyrovae.training.fit import Row

from .building import build, build_objective, device_of, load_data
from .options import (
    DataOptions,
    DeviceName,
    GuideName,
    LoopOptions,
    ModelOptions,
    ObjectiveName,
    PriorName,
    SizeOptions,
    TrainOptions,
)
from .work import train_run


@dataclass(frozen=True)
class Cell:
    """One program and one objective."""

    data: DataOptions
    model: ModelOptions
    train: TrainOptions
    out: Path
    num_samples: int
    device: DeviceName
    threads: int

    @property
    def label(self) -> tuple[str, str, ObjectiveName]:
        """(prior, guide, objective), or (program, "", objective) for a program that is no vae."""
        if self.model.model == "vae":
            return (self.model.prior or "", self.model.guide or "", self.train.objective)
        return (self.model.model, "", self.train.objective)

    @property
    def title(self) -> str:
        """The label in one string."""
        return " ".join(filter(None, self.label))


@dataclass(frozen=True)
class CellResult:
    """What a cell gave: its history, and its evidence on the test split."""

    cell: Cell
    evidence: pv.Evidence
    history: list[Row]
    seconds: float


@dataclass(frozen=True)
class Plan:
    """What of a grid has to run.

    Attributes:
        cells: the cells, longest first.
        refused: cells whose objective is not valid for their program, and why.
        same: mean-field cells that the trace-elbo cell of their program stands for: where no KL
            has a closed form the two objectives are the same estimator, with the same noise.
        measures: whether p(x) of a cell's program is a mass or a density.
    """

    cells: list[Cell]
    refused: dict[Cell, str]
    same: dict[Cell, Cell]
    measures: dict[Cell, Measure] = field(default_factory=dict)


def make_plan(cells: list[Cell], data: Dataset) -> Plan:
    """Builds each program once and looks at it, before anything is trained.

    Raises:
        ValueError: masses and densities in one grid.
    """
    run: list[Cell] = []
    refused: dict[Cell, str] = {}
    same: dict[Cell, Cell] = {}
    measures: dict[Cell, Measure] = {}
    for cell in cells:
        pair = build(cell.model, data, cell.train.seed)
        store = ParameterStore()
        program = inspect_program(store.bind(pair.model), store.bind(pair.guide), data.train)
        measures[cell] = program.measure
        twin = next((c for c in run if c.model == cell.model and c.train.objective == "trace-elbo"), None)
        try:
            check_objective(build_objective(cell.train.objective, cell.train.particles), program)
        except ValueError as error:
            refused[cell] = str(error)
            continue
        if cell.train.objective == "mean-field" and twin is not None and not closed_form_kl(program):
            same[cell] = twin
        else:
            run.append(cell)
    check_alike([(cell.title, measure) for cell, measure in measures.items()])
    # A flow's density under a VampPrior takes longest by far: started last it would run alone.
    run.sort(key=lambda c: (c.model.guide in ("flow", "spline-flow"), c.model.prior == "vamp"), reverse=True)
    return Plan(run, refused, same, measures)


def run_cell(cell: Cell) -> CellResult:
    """Trains into the cell's run folder and evaluates on the test split."""
    data = load_data(cell.data, device_of(cell.device))
    fit = train_run(
        cell.out, cell.data, cell.model, cell.train, device=cell.device, overwrite=True, data=data
    )
    ev = pv.evidence(
        fit.model,
        fit.guide,
        data.test,
        estimators=[pv.ELBO(), pv.IS(cell.num_samples)],
        seed=cell.train.seed,
    )
    export.write_netcdf(ev, cell.out / runs.EVIDENCE)
    return CellResult(cell, ev, fit.history, fit.seconds + ev.attributes["seconds"])


def _run_packed(cell: Cell) -> bytes:
    torch.set_num_threads(cell.threads)
    # Plain bytes between our own processes: torch would pass each tensor as a shared file
    # descriptor, which is gone once the worker is.
    return pickle.dumps(run_cell(cell))


def run_cells(cells: list[Cell], jobs: int) -> Iterator[CellResult]:
    """Yields results as cells end, `jobs` at a time."""
    if jobs == 1:
        yield from map(run_cell, cells)
        return
    # Spawn: a forked torch with live thread pools can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        futures = [pool.submit(_run_packed, cell) for cell in cells]
        try:
            for future in as_completed(futures):
                yield pickle.loads(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


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
    num_samples: int,
    device: DeviceName,
    threads: int,
) -> list[Cell]:
    """The product priors x guides x objectives, then each program of the user's x objective."""
    same = dataclasses.asdict(sizes)
    models = [ModelOptions(**same, prior=p, guide=g) for p in priors for g in guides]
    models += [ModelOptions(**same | {"preset": None}, model=reference) for reference in programs]
    cells = []
    for model in models:
        name = "".join(c if c.isalnum() else "-" for c in model.model)
        if model.model == "vae":
            name = f"{model.prior}-{model.guide}"
        for objective in objectives:
            train = TrainOptions(**dataclasses.asdict(loop), objective=objective)
            folder = out / f"{name}-{objective}"
            cells.append(Cell(data, model, train, folder, num_samples, device, threads))
    if not cells or len({c.out for c in cells}) < len(cells):
        raise ValueError(f"expected at least one cell and none twice, got {[c.out.name for c in cells]}")
    return cells


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
