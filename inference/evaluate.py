"""Compare ELBO with importance-sampled evidence for trained run folders."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

import pyrovae as pv
from pyrovae import export, plots, runs
from pyrovae.inference.options import MachineOptions
from pyrovae.inference.running import console, progress, run_script
from pyrovae.inference.work import load_run


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Options:
    """Options of evaluate."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders of train or compare; several are compared by paired differences to the first."""
    split: Literal["train", "valid", "test"] = "test"
    """Data to evaluate on."""
    num_samples: int = 5000
    """Importance samples K per datum."""
    limit: int | None = None
    """Only the first so many data (the table then says so)."""
    seed: int = 0
    """Seed of the noise."""
    delta: float = 0.05
    """Failure probability of the certificate."""
    root: Path | None = None
    """Folder of data sets, where it differs from the run's."""
    markdown: bool = False
    """Print the table as Markdown."""
    machine: MachineOptions = field(default_factory=MachineOptions)


def run(options: Options) -> None:
    """Evaluates each folder; writes evidence.nc and evidence.png into it."""
    if not options.folders:
        raise ValueError("expected at least one run folder, got none; try: train, then evaluate runs/train")
    first: pv.Evidence | None = None
    for folder in options.folders:
        pair, data, _ = load_run(folder, options.machine.device, options.root)
        x = data.split(options.split)
        if options.limit is not None:
            if options.limit < 1:
                raise ValueError(f"expected --limit >= 1, got {options.limit}")
            x = x[: options.limit]
        with progress(options.machine.quiet, str(folder), options.num_samples * len(x)) as update:
            ev = pv.evidence(
                *pair,
                x,
                estimators=[pv.ELBO(), pv.IS(options.num_samples)],
                seed=options.seed,
                delta=options.delta,
                progress=lambda done, _total: update(completed=done),
            )
        export.write_netcdf(ev, folder / runs.EVIDENCE)
        plots.save(ev.plot(), folder / "evidence.png")
        part = "" if len(x) == len(data.split(options.split)) else f"first {len(x):,} of the "
        console.print(f"{folder}: {part}{options.split} split of {data.spec.name}", highlight=False)
        print(ev.table("markdown" if options.markdown else "terminal"))
        if first is None:
            first = ev
        else:
            print(f"against {options.folders[0]}: {ev.compare(first)}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_script(run, Options, argv, "evaluate", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
