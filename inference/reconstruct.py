"""Reconstruct new data: what the model makes of each row, from where the guide of a trained run folder puts it."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:  # the command, which hears Ctrl-C while torch is imported
    sys.exit(runpy.run_path(f"{Path(__file__).parent}/cli.py")["main"](["reconstruct", *sys.argv[1:]]))

import tyro

import pyrovae as pv
from pyrovae.inference.drawing.arrays import write_arrays
from pyrovae.inference.running.new_data import NewDataOptions, opened, target_of
from pyrovae.inference.running.running import console, run_script, write_all
from pyrovae.runs.scores import SUFFIXES, write_columns


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Options(NewDataOptions):
    """Options of reconstruct."""


def run(options: Options) -> None:
    """Writes what p(x'|z) is, z drawn from q(z|x), in the words and units of the data.

    Of a table a table: the mean of a real column and of a count, the most probable value of bits and categories. Else
    (or by --out) an .npz of x, mean and draws, in numbers.
    """
    loaded, rows = opened(options)
    columns = loaded.spec.columns
    suffixes = (*SUFFIXES, ".npz") if columns else (".npz",)
    target = target_of(options, "reconstructed", suffixes)
    made = pv.reconstruct(loaded.model, loaded.guide, *rows.arguments, seed=options.seed)
    x = rows.arguments[0]
    mean = made.mean.reshape(x.shape)

    def write() -> None:
        if target.suffix == ".npz":
            arrays = {"x": x, "mean": mean, "draws": made.x.reshape(x.shape)}
            write_arrays(target, arrays, loaded.weights_hash)
            return
        assert columns is not None
        frame = pv.data.as_frame(mean, loaded.spec)
        head = "row" if "row" not in columns else "row name"
        table: dict[str, list[Any]] = {head: list(rows.names)}
        write_columns(target, table | {name: frame[name].tolist() for name in columns})

    write_all([write])
    console.print(f"{target}: {len(x):,} rows", highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_script(run, Options, argv, "reconstruct", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
