"""A grid of fits: one cell trains, evaluates and keeps one program; cells run side by side."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pyrovae as pv
from pyrovae import runs
from pyrovae.data import Dataset
from pyrovae.evidence.evidence import data_hash
from pyrovae.objectives import check_objective
from pyrovae.programs import Measure, ParameterStore, check_alike, inspect_program
from pyrovae.programs.checks.validity import closed_form_kl
from pyrovae.training.fit import Row

from ..options.applying import refuse_unused, without_sizes
from ..options.building import build, build_objective, device_of, load_data
from ..options.machine import DeviceName, KeepOptions
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
from .work import fit_options, plain_options, train_run


@dataclass(frozen=True)
class Cell:
    """One program and one objective."""

    data: DataOptions
    model: ModelOptions
    train: TrainOptions
    out: Path
    num_samples: int
    tolerance: float | None
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
    """Results of a cell: its history, its evidence on the test split, and which files could not be written."""

    cell: Cell
    evidence: pv.Evidence
    history: list[Row]
    seconds: float
    unwritten: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Cells of a grid that have to run.

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
    """Trains into the cell's run folder and evaluates on the test split; what is there already is taken.

    A full disk costs files, and no figures: those are then of the program in memory.
    """
    data = load_data(cell.data, device_of(cell.device))
    ended: list[pv.Fit] = []
    unwritten: list[str] = []
    program: pv.Run | pv.Fit
    if stands(cell) != "whole":
        keep = KeepOptions(resume=True, checkpoint_every=0)
        try:
            train_run(
                cell.out,
                cell.data,
                cell.model,
                cell.train,
                device=cell.device,
                keep=keep,
                on_end=ended.append,
                data=data,
            )
        except OSError as error:
            if not ended:
                raise
            unwritten.append(str(error))
    if unwritten:
        program, history, seconds = ended[0], ended[0].history, ended[0].seconds
    else:
        program = runs.load(cell.out, device=device_of(cell.device), data=data, trust=True)
        history, seconds = program.history, program.seconds or 0.0
        found = _evidence_of(program, cell)
        if found is not None:
            return CellResult(cell, found, history, seconds + float(found.attributes["seconds"]))
    ev = pv.evidence(
        program.model,
        program.guide,
        data.test,
        estimators=estimators_of(cell.num_samples, cell.tolerance),
        seed=cell.train.seed,
    )
    if isinstance(program, pv.Run):
        mark = {"weights_hash": program.weights_hash, "split": "test"}
        ev = dataclasses.replace(ev, attributes={**ev.attributes, **mark})
        try:
            runs.write_evidence(ev, cell.out / runs.EVIDENCE)
        except OSError as error:
            unwritten.append(str(error))
    return CellResult(cell, ev, history, seconds + ev.attributes["seconds"], tuple(unwritten))


def _evidence_of(run: pv.Run, cell: Cell) -> pv.Evidence | None:
    """Evidence that an earlier command found for these very weights, asked the same."""
    try:
        ev = run.stored_evidence
    except ValueError:  # damaged: it is made anew
        return None
    wanted = [e.name for e in estimators_of(cell.num_samples, cell.tolerance)]
    if ev is None or list(ev) != wanted or "weights_hash" not in ev.attributes:
        return None
    asked = cell.num_samples, cell.tolerance, cell.train.seed, data_hash(run.data.test)
    tolerance = ev["Adaptive"].details.get("tolerance") if "Adaptive" in ev else None
    found = ev["IS"].num_samples, tolerance, ev.attributes["seed"], ev.attributes["data_hash"]
    return ev if asked == found else None


def estimators_of(num_samples: int, tolerance: float | None) -> tuple[Any, ...]:
    """Estimators of a comparison."""
    own = () if tolerance is None else (pv.Adaptive(tolerance),)
    return (pv.ELBO(), pv.IS(num_samples), *own)


def stands(cell: Cell) -> Literal["new", "unfinished", "whole"]:
    """State of the cell's folder: nothing, or a run of these very options.

    Raises:
        ValueError: a run with other options, or of other code: it is somebody's, and stays.
    """
    if cell.out.is_symlink():
        raise ValueError(f"expected {cell.out} to be a folder, got a link; try another --out")
    unfinished = runs.is_unfinished(cell.out)
    name = runs.UNFINISHED if unfinished else runs.CONFIG
    if not (cell.out / name).exists():
        return "new"
    found = runs.read_config(cell.out, name)
    wanted = plain_options(cell.data, cell.model, cell.train)
    other = [k for k in wanted if found.get(k) != wanted[k]]
    if other or (unfinished and (cell.out / runs.CHECKPOINTS).exists()):
        raise ValueError(
            f"expected no run in the way, or one of this very cell, got one with other {' and '.join(other)} "
            f"options in {cell.out}; try another --out"
            if other
            else f"expected no run in the way, got an unfinished one of train in {cell.out}; try another --out"
        )
    return "unfinished" if unfinished else "whole"


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
    tolerance: float | None,
    device: DeviceName,
    threads: int,
) -> list[Cell]:
    """The product priors x guides x objectives, then each program of the user's x objective."""
    same = dataclasses.asdict(sizes)
    models = [ModelOptions(**same, prior=p, guide=g) for p in priors for g in guides]
    grid = list(models)
    models += [without_sizes(reference) for reference in programs]
    cells = []
    for model in models:
        name = "".join(c if c.isalnum() else "-" for c in model.model)
        if model.model == "vae":
            name = f"{model.prior}-{model.guide}"
        for objective in objectives:
            train = TrainOptions(**dataclasses.asdict(loop), objective=objective)
            folder = out / f"{name}-{objective}"
            cells.append(Cell(data, model, train, folder, num_samples, tolerance, device, threads))
    refuse_unused(grid or models, [c.train for c in cells])
    for cell in cells:
        fit_options(cell.train, KeepOptions())  # refuses before anything is trained, and not in each cell
    if not cells or len({c.out for c in cells}) < len(cells):
        raise ValueError(f"expected at least one cell and none twice, got {[c.out.name for c in cells]}")
    return cells
