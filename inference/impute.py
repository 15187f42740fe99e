"""Fill in what is missing of rows, by their law given what is there under a trained run folder."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

if __name__ == "__main__" and not __package__:  # the command, which hears Ctrl-C while torch is imported
    sys.exit(runpy.run_path(f"{Path(__file__).parent}/cli.py")["main"](["impute", *sys.argv[1:]]))

import tyro

import pyrovae as pv
from pyrovae import runs
from pyrovae.data import imputed_frames
from pyrovae.files import write_whole
from pyrovae.inference.options.building import device_of
from pyrovae.inference.options.machine import MachineOptions
from pyrovae.inference.running.evaluating import prepare
from pyrovae.inference.running.running import console, run_script, write_all
from pyrovae.runs.scores import rows_for

SHOWN = 8  # values in the terminal


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Options:
    """Options of impute."""

    folder: Annotated[Path, tyro.conf.Positional]
    """Run folder of train, with --missing ignore."""
    rows: Path | None = None
    """A .csv, .parquet, .h5ad, .npy, .npz or .pt file of other rows; columns go by their names (default: the test
    split)."""
    num_samples: int = 1000
    """Importance samples K for each row."""
    num_draws: int = 200
    """Draws that probabilities of categories are counted in."""
    level: float = 0.9
    """Probability of the intervals."""
    seed: int = 0
    """Seed of the draws."""
    out: Path | None = None
    """Folder for imputed.csv and imputed_values.csv (default: the run folder)."""
    trust: bool = False
    """Run the code that a run folder names (--model of train), where it is not the code that you trained it with."""
    root: Path | None = None
    """Folder of data sets, where it differs from the run's."""
    machine: MachineOptions = field(default_factory=MachineOptions)


def run(options: Options) -> None:
    """Writes imputed.csv, whole rows, and imputed_values.csv, a line for each value with its interval.

    Raises:
        ValueError: a run that was not trained with missing values, or rows that are not like its data.
    """
    loaded = runs.load(options.folder, options.root, device_of(options.machine.device), trust=options.trust)
    if loaded.spec.missing is None:
        raise ValueError(
            f"expected a run trained with --missing ignore, got {options.folder}, whose model takes whole rows alone"
        )
    out = options.out or options.folder
    prepare(out, "--out")
    rows, names = _rows(loaded, options)
    found = pv.impute(
        loaded.model,
        loaded.guide,
        *(t.to(loaded.device) for t in rows),
        num_samples=options.num_samples,
        num_draws=min(options.num_draws, options.num_samples),
        level=options.level,
        seed=options.seed,
    )
    whole, values = imputed_frames(found, loaded.spec, names)
    console.print(f"{options.folder}: {found!r}", highlight=False, markup=False)
    # Digits that count: of columns of 1e-6 a fixed number of decimals shows none.
    print(values.head(SHOWN).to_string(index=False, na_rep="", float_format="{:.4g}".format))
    if len(values) > SHOWN:
        console.print(f"... {len(values) - SHOWN:,} more", highlight=False)
    write_all(
        [
            lambda: write_whole(out / "imputed.csv", whole.to_csv(index_label="row")),
            lambda: write_whole(out / "imputed_values.csv", values.to_csv(index=False)),
        ]
    )
    console.print(f"{out}: imputed.csv, imputed_values.csv", highlight=False)


def _rows(loaded: pv.Run, options: Options) -> tuple[tuple[Any, ...], list[str]]:
    """`(x, *context)` of the rows, and their names."""
    if options.rows is not None:
        found = rows_for(loaded, options.rows)
        for note in found.notes:
            console.print(note, highlight=False, markup=False)
        return found.arguments, list(found.names)
    return loaded.data.arguments("test"), list(loaded.data.row_names("test"))


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_script(run, Options, argv, "impute", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
