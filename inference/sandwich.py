"""Bounds on both sides of ln p(x), on data simulated from a trained run folder's model."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

if __name__ == "__main__" and not __package__:  # the command, which hears Ctrl-C while torch is imported
    sys.exit(runpy.run_path(f"{Path(__file__).parent}/cli.py")["main"](["sandwich", *sys.argv[1:]]))

import tyro

import pyrovae as pv
from pyrovae import plots
from pyrovae.evidence.core.compile_when import MOVES
from pyrovae.files import write_whole
from pyrovae.inference.options.building import device_of
from pyrovae.inference.options.machine import FormatName, MachineOptions
from pyrovae.inference.options.ranges import MANY
from pyrovae.inference.running.entries import SANDWICH
from pyrovae.inference.running.evaluating import CompileName, load_runs, place_of, prepare
from pyrovae.inference.running.running import console, progress, run_script, write_all


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Options:
    """Options of sandwich."""

    RANGES: ClassVar = {"temperatures": (2, MANY)}

    folder: Annotated[Path, tyro.conf.Positional]
    """Run folder of train, compare or pv.save."""
    simulate: int = 100
    """Data drawn from the model."""
    temperatures: tuple[int, ...] = (30, 100, 300)
    """Numbers of temperatures, both ends counted: one pair of bounds each."""
    chains: int = 16
    """Chains per datum, in each direction."""
    start: Literal["guide", "prior"] = "guide"
    """Start of the forward chains."""
    leapfrog: int = 8
    """Leapfrog steps of one move."""
    num_samples: int = 1000
    """Samples K of the importance-weighted pair of bounds."""
    seed: int = 0
    """Seed of data and noise."""
    compile: CompileName = "auto"
    """Run the gradients as one compiled graph; auto does so in long runs."""
    trust: bool = False
    """Run the code that a run folder names (--model of train), where it is not the code that you trained it with."""
    root: Path | None = None
    """Folder of data sets, where it differs from the run's."""
    markdown: bool = False
    """Print the table as Markdown."""
    out_dir: Path | None = None
    """Folder for what is written, in a folder of the run's name (default: the run folder itself)."""
    format: FormatName = "png"
    """Format of pictures."""
    machine: MachineOptions = field(default_factory=MachineOptions)


def run(options: Options) -> None:
    """Writes sandwich.png, sandwich.md and sandwich.json into the run folder, or --out-dir."""
    if not options.temperatures:
        raise ValueError(
            "expected at least one number of --temperatures, got none; try --temperatures 100 300"
        )
    ais = pv.AIS(max(options.temperatures), options.chains, options.start, options.leapfrog)
    device = device_of(options.machine.device)
    (loaded,), rows = load_runs([options.folder], options.root, device, "test", 1, options.trust)
    place = place_of(loaded, options.out_dir)
    prepare(place)
    moves = 2 * options.simulate * options.chains * options.leapfrog * sum(options.temperatures)
    with progress(options.machine.quiet, "chains x temperatures", 1) as update:
        result = pv.sandwich(
            loaded.model,
            loaded.guide,
            *rows,
            simulate=options.simulate,
            ais=ais,
            temperatures=options.temperatures,
            num_samples=options.num_samples,
            seed=options.seed,
            compile=moves >= MOVES if options.compile == "auto" else options.compile == "on",
            progress=lambda done, total: update(completed=done, total=total),
        )
    title = f"{loaded.folder}: {options.simulate} data simulated from the model fitted to {loaded.spec.name}"
    console.print(title, highlight=False)
    print(result.table("markdown" if options.markdown else "terminal"))
    figure = result.plot()
    summary = json.dumps(summarise(result) | loaded.identity, indent=1)
    write_all(
        [
            lambda: plots.save(figure, place / f"sandwich.{options.format}", loaded.weights_hash),
            lambda: write_whole(place / "sandwich.md", f"{title}\n\n{result.table('markdown')}"),
            lambda: write_whole(place / SANDWICH, summary),
        ]
    )
    console.print(f"{place}: sandwich.{options.format}, sandwich.md, sandwich.json", highlight=False)


def summarise(result: pv.Sandwich) -> dict[str, Any]:
    """Means and errors as plain numbers."""
    brackets = (result.importance, *result.brackets)
    rows = [
        {"method": b.method, "effort": b.effort}
        | {name: {"mean": mean, "se": se} for name, (mean, se) in b.means().items()}
        for b in brackets
    ]
    acceptance = float(result.acceptance.mean())
    gaps = {"gaps": result.gaps}
    return {
        "brackets": rows,
        **gaps,
        "acceptance": acceptance,
        "warnings": result.warnings,
        **result.attributes,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_script(run, Options, argv, "sandwich", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
