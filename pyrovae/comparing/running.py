"""A cell trained, evaluated and kept; what is there already is taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from .. import runs, training
from ..data import Dataset
from ..evidence import evidence
from ..programs.declaration import with_plate
from ..runs.loading import brought_to_life
from ..runs.reusing import found_in, marked
from ..runs.weights import put_weights, tensors_of
from ..training import Fit, fit
from .cell import Cell, CellResult, Weights

DELTA = 0.05  # failure probability of the certificates, that of `pv.evidence`
PROGRAMS = ("model", "guide", "store", "modules")  # of a fit, what other processes do not send


def run_cell(cell: Cell, load: Callable[[], Dataset], sends: bool = False) -> CellResult:
    """Trains into the cell's run folder, if it has one, and evaluates on the test split; what is there is taken.

    A full disk costs files, and no figures: those are then of the program in memory.

    Args:
        cell: the cell.
        load: gives the data.
        sends: the result goes to another process, and the fit as its weights.
    """
    data = load()
    if cell.out is None:
        done = fit(*cell.program.build(data, cell.seed), data, **cell.arguments())
        ev = _evidence(cell, done, data)
        trained = _sent(done) if sends else done
        return CellResult(ev, done.history, done.seconds + ev.attributes["seconds"], trained=trained)
    ended: list[Fit] = []
    unwritten: list[str] = []
    if stands(cell) != "whole":
        try:
            training.train_into(
                cell.out,
                cell.config,
                lambda: data,
                lambda found: cell.program.build(found, cell.seed),
                cell.arguments,
                code=cell.code,
                resume=True,
                format=cell.format,
                on_end=ended.append,
            )
        except OSError as error:
            if not ended:
                raise
            unwritten.append(str(error))
    if unwritten:
        ev = _evidence(cell, ended[0], data)
        seconds = ended[0].seconds + ev.attributes["seconds"]
        return CellResult(ev, ended[0].history, seconds, tuple(unwritten))
    run = load_cell(cell, data)
    kept = found_in(run, data.arguments("test"), list(cell.estimators), cell.seed, DELTA)
    if kept is not None:
        found, _ = kept
    else:
        found = marked(_evidence(cell, run, data), run, cell.estimators, "test")
        try:
            runs.write_evidence(found, cell.out / runs.EVIDENCE)
        except OSError as error:
            unwritten.append(str(error))
    seconds = (run.seconds or 0.0) + float(found.attributes["seconds"])
    return CellResult(found, run.history, seconds, tuple(unwritten))


def load_cell(cell: Cell, data: Dataset) -> runs.Run:
    """The run in the cell's folder, its programs built by the cell."""
    assert cell.out is not None
    model, guide = cell.program.build(data, cell.seed)
    return runs.load(cell.out, device=data.train.device, model=model, guide=guide, data=data)


def revived(cell: Cell, sent: Weights, data: Dataset) -> Fit:
    """A fit of another process, its programs built by the cell."""
    pair = cell.program.build(data, cell.seed)
    store, modules = brought_to_life(*pair, data.arguments("train"), cell.plate)
    put_weights(sent.tensors, store, modules, cell.title)
    model = with_plate(store.bind(pair[0]), cell.plate)
    return Fit(model, store.bind(pair[1]), store=store, modules=modules, **sent.about)


def stands(cell: Cell) -> Literal["new", "unfinished", "whole"]:
    """State of the cell's folder: nothing, or a run of this very configuration.

    Raises:
        ValueError: a run of another one, or of other code: it is somebody's, and stays.
    """
    out = cell.out
    if out is None:
        return "new"
    if out.is_symlink():
        raise ValueError(f"expected {out} to be a folder, got a link; try another --out")
    unfinished = runs.is_unfinished(out)
    name = runs.UNFINISHED if unfinished else runs.CONFIG
    if not (out / name).exists():
        return "new"
    other = _different(runs.read_config(out, name), cell.config)
    if other:
        raise ValueError(
            f"expected no run in the way, or one of this very cell, got one with other {' and '.join(other)} in {out}; "
            "try another --out"
        )
    if unfinished and (out / runs.CHECKPOINTS).exists():
        raise ValueError(
            f"expected no run in the way, got an unfinished one of train in {out}; try another --out"
        )
    return "unfinished" if unfinished else "whole"


def _different(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Names of what differs; of cells given in Python, what decides their numbers."""
    if "cell" in wanted:
        inner = found.get("cell")
        was = inner if isinstance(inner, dict) else {}
        names = [k for k, v in wanted["cell"].items() if was.get(k) != v]
        return [
            n for n in names if n != "options"
        ] or names  # all options by one hash, where none is told by name
    words = {"code": "code"}
    return [words.get(k, f"{k} options") for k, v in wanted.items() if found.get(k) != v]


def _evidence(cell: Cell, program: Fit | runs.Run, data: Dataset) -> Any:
    estimators, seed = cell.estimators, cell.seed
    return evidence(
        program.model,
        program.guide,
        *data.arguments("test"),
        estimators=estimators,
        seed=seed,
        delta=DELTA,
        plate=cell.plate,
    )


def _sent(done: Fit) -> Weights:
    about = {f.name: getattr(done, f.name) for f in dataclasses.fields(done) if f.name not in PROGRAMS}
    return Weights({k: v.cpu() for k, v in tensors_of(done.store, done.modules).items()}, about)


def folder_of(out: Path, words: tuple[str, ...], seed: int | None) -> Path:
    """Run folder of a cell in the folder of its comparison: words and seed, in letters, digits and hyphens."""
    names = ["".join(c if c.isalnum() else "-" for c in word) for word in words if word]
    return out / "-".join([*names, *([] if seed is None else [f"seed{seed}"])])
