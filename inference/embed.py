"""Embed new data: means of the latents given each row, under a trained run folder."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__" and not __package__:  # the command, which hears Ctrl-C while torch is imported
    sys.exit(runpy.run_path(f"{Path(__file__).parent}/cli.py")["main"](["embed", *sys.argv[1:]]))

import torch
import tyro
from torch import Tensor

import pyrovae as pv
from pyrovae.data import DataSpec
from pyrovae.data.spec import KNOWN
from pyrovae.inference.running.new_data import NewDataOptions, opened, target_of
from pyrovae.inference.running.running import console, run_script, write_all
from pyrovae.runs.scores import SUFFIXES, write_columns


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Options(NewDataOptions):
    """Options of embed."""

    resampled: bool = False
    """Means of the posterior, by importance, in place of the guide's."""
    num_samples: int | None = None
    """Draws per row (default: 100 of the guide where its mean is not known, 1000 with --resampled)."""


def run(options: Options) -> None:
    """Writes a .csv (or, by --out, .parquet): row, and a column for each dimension of each latent."""
    loaded, rows = opened(options)
    target = target_of(options, "embedded", SUFFIXES)
    means = pv.embed(
        loaded.model,
        loaded.guide,
        *rows.arguments,
        resampled=options.resampled,
        num_samples=options.num_samples,
        seed=options.seed,
    )
    sites = means if isinstance(means, dict) else {"z": means}
    columns: dict[str, list[Any]] = {"row": list(rows.names)}
    for name, value in sites.items():
        flat = value.reshape(len(value), -1).cpu()
        columns |= {
            f"{name}_{word}": column.tolist()
            for word, column in zip(names_of(flat, loaded.spec), flat.T, strict=True)
        }

    def write() -> None:
        write_columns(target, columns)

    write_all([write])
    console.print(f"{target}: {len(rows.names):,} rows, {len(columns) - 1} columns", highlight=False)


def names_of(means: Tensor, spec: DataSpec) -> Sequence[object]:
    """Names of the columns `[N, D]`: those of the classes, where they are their probabilities; else 0 ... D - 1."""
    number, classes = means.shape[1], spec.classes if KNOWN in spec.given else None
    probabilities = bool((means >= 0).all()) and torch.allclose(means.sum(1), means.new_ones(()))
    return classes if classes is not None and len(classes) == number and probabilities else range(number)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_script(run, Options, argv, "embed", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
