"""A run folder and new rows for it, as options name them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

import pyrovae as pv
from pyrovae import runs
from pyrovae.data import NewRows
from pyrovae.runs.scores import rows_for

from ..options.building import device_of
from ..options.machine import MachineOptions
from .evaluating import prepare
from .running import console


@dataclass(frozen=True)
class NewDataOptions:
    """Options of a question about new rows."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Run folder of train, compare or pv.save."""
    rows: Annotated[Path, tyro.conf.Positional]
    """File of new rows: .csv, .parquet or .h5ad, whose columns go by name; .npy, .npz (x, and y where labels are given)
    or .pt."""
    out: Path | None = None
    """File that is written."""
    seed: int = 0
    """Seed of the draws."""
    trust: bool = False
    """Run the code that a run folder names (--model of train), where it is not the code that you trained it with."""
    root: Path | None = None
    """Folder of data sets, where it differs from the run's."""
    data: Path | None = None
    """File of the run's own data, where it is neither where it was nor beside the run."""
    machine: MachineOptions = field(default_factory=MachineOptions)


def opened(options: NewDataOptions) -> tuple[pv.Run, NewRows]:
    """The run, and the rows in its form; says what was done to them.

    Raises:
        FileNotFoundError, ValueError: no run, no file, or rows that are not in the form of the training data.
    """
    device = device_of(options.machine.device)
    run = runs.load(options.folder, options.root, device, trust=options.trust, data=options.data)
    rows = rows_for(run, options.rows)
    for note in rows.notes:
        console.print(note, highlight=False)
    return run, dataclasses.replace(rows, notes=())


def target_of(options: NewDataOptions, word: str, suffixes: Sequence[str]) -> Path:
    """File that is written: `--out`, or one named after the rows in the run folder; told at once if it cannot be.

    Raises:
        ValueError: another suffix. OSError: a folder that cannot be written.
    """
    target = options.out or options.folder / f"{word}-{options.rows.stem}{suffixes[0]}"
    if target.suffix not in suffixes:
        raise ValueError(f"expected --out to end in {' or '.join(suffixes)}, got {target}")
    if not target.parent.is_dir():
        raise ValueError(f"expected --out in a folder that exists, got {target}")
    prepare(target.parent, "--out")
    return target
