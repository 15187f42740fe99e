"""Estimate the evidence of trained run folders, by any of the estimators, and compare it with the ELBO."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

if __name__ == "__main__" and not __package__:  # the command, which hears Ctrl-C while torch is imported
    sys.exit(runpy.run_path(f"{Path(__file__).parent}/cli.py")["main"](["evaluate", *sys.argv[1:]]))

import tyro

from pyrovae.comparing import markdown, runs_table
from pyrovae.distributed import World, joined
from pyrovae.evidence import Sharing, status
from pyrovae.files import check_writable, write_whole
from pyrovae.inference.options.applying import refuse_unasked
from pyrovae.inference.options.building import device_of
from pyrovae.inference.options.estimating import EstimatorOptions, shard_of
from pyrovae.inference.options.given.lines import given_lines
from pyrovae.inference.options.machine import FormatName, MachineOptions
from pyrovae.inference.options.ranges import MANY
from pyrovae.inference.options.suiting import check_asked, suited
from pyrovae.inference.running.entries import entry_of_run, with_sandwich_of
from pyrovae.inference.running.evaluating import (
    PARTIAL,
    CompileName,
    Question,
    at,
    evaluate_run,
    keep,
    load_runs,
)
from pyrovae.inference.running.running import (
    console,
    print_table,
    progress,
    refuse_unwritten,
    run_script,
)


@tyro.conf.configure(tyro.conf.OmitArgPrefixes)
@dataclass(frozen=True)
class Options:
    """Options of evaluate."""

    BASIC: ClassVar = (
        *("folders", "split", "estimators", "num_samples", "limit", "seed", "reuse", "resume", "baseline"),
        *("trust", "markdown", "out", "out_dir", "device", "quiet"),
    )  # fmt: skip
    RANGES: ClassVar = {"temperatures": (2, MANY)}

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders of train, compare or pv.save. Several get one table, with differences paired over the data."""
    split: Literal["train", "valid", "test"] = "test"
    """Data to evaluate on."""
    estimate: EstimatorOptions = field(default_factory=EstimatorOptions)
    limit: int | None = None
    """Only so many data, drawn under a fixed seed (the table then says so)."""
    seed: int = 0
    """Seed of the noise."""
    delta: float = 0.05
    """Failure probability of the certificate."""
    compile: CompileName = "auto"
    """Run the weights as one compiled graph; auto does so from 10 million (datum, sample) pairs on."""
    reuse: bool = False
    """Take a run's evidence.nc (of another split, its file) where it is of the same weights, data, estimators, seed and
    delta."""
    resume: bool = False
    """Keep partial results in the run folder (partial/), and go on from those of an evaluation that was killed:
    to the same numbers."""
    shard: str | None = None
    """i/n: evaluate only the i-th of n parts of the data (0/4 ... 3/4, on as many machines), with --resume. When
    all parts are done, --resume without --shard puts them together. For elbo, is and jackknife."""
    shared: bool = False
    """Compute together with other processes: the same command on any number of machines that share the run folder
    takes chunks of the data that nobody has, and puts all together. On by itself under torchrun."""
    claim_expiry: float = 60.0
    """Seconds without a sign of life after which a chunk of a process that died is taken by another one."""
    status: bool = False
    """Only show how far shared evaluations in the run folders are."""
    label: str | None = None
    """Name of the data, for the tables (default: name, split and binarisation)."""
    baseline: Path | None = None
    """Run folder that the others are compared to (default: the best)."""
    trust: bool = False
    """Run the code that a run folder names (--model of train), where it is not the code that you trained it with."""
    root: Path | None = None
    """Folder of data sets, where it differs from the run's."""
    data: Path | None = None
    """File of the run's data, where it is neither where it was nor beside the run."""
    markdown: bool = False
    """Print the tables as Markdown."""
    out: Path | None = None
    """Also write what is printed, as Markdown, to this file."""
    out_dir: Path | None = None
    """Folder for evidence.nc, evidence.png and partial results of each run, in a folder of its name (default: the run
    folder itself)."""
    format: FormatName = "png"
    """Format of pictures."""
    machine: MachineOptions = field(default_factory=MachineOptions)


def run(options: Options) -> None:
    """Evaluates each folder; writes evidence.nc and a picture into it (of another split evidence-train.nc or
    evidence-valid.nc; with --limit N, beside those of more data, evidence-N.nc)."""
    if not options.folders:
        raise ValueError("expected at least one run folder, got none; try: train, then evaluate runs/train")
    if options.status:
        for folder in options.folders:
            none = folder.is_dir() and not (folder / PARTIAL).exists()
            found = [] if none else status(folder / PARTIAL)
            print("\n".join(f"{folder}: {one}" for one in found) or f"{folder}: no shared evaluation")
        return
    with joined(options.machine.device) as world:
        if world is not None:
            for folder in options.folders:
                world.check_shared(folder)
        _run(options, world)


def _run(options: Options, world: World | None) -> None:
    folders = list(options.folders)
    shared = options.shared or world is not None
    if options.baseline is not None and os.path.realpath(options.baseline) not in map(
        os.path.realpath, folders
    ):
        folders.insert(0, options.baseline)
    if options.out is not None and (options.out.is_dir() or not options.out.parent.is_dir()):
        raise ValueError(f"expected a file in a folder that exists for --out, got {options.out}")
    if options.out is not None and options.out.exists() and options.out.suffix not in (".md", ".txt"):
        raise ValueError(
            f"expected a new file, or a .md or .txt to replace, for --out, got {options.out}; try another name"
        )
    if options.out is not None:
        check_writable(options.out.parent)
    estimators, shard = options.estimate.build(), shard_of(options.shard)
    if options.estimate.estimators != EstimatorOptions().estimators:
        refuse_unasked(options.estimate, options.estimate.estimators)
    if not shared and options.claim_expiry != Options.claim_expiry:
        raise ValueError(
            f"expected --claim-expiry with --shared alone, got {options.claim_expiry:g}; try --shared, or leave it out"
        )
    if shard is not None and not options.resume:
        raise ValueError(
            "expected --resume with --shard, whose results are kept as partial ones; try --resume"
        )
    if shard is not None and len(folders) > 1:
        raise ValueError(f"expected one run folder with --shard, got {len(folders)}")
    if shard is not None and shared:
        raise ValueError("expected --shared or --shard, got both; try --shared, which needs no numbers")
    device = device_of(options.machine.device)
    loaded, rows = load_runs(
        folders, options.root, device, options.split, options.limit, options.trust, options.data
    )
    x, *context = rows
    spec = loaded[0].spec
    part = "" if len(x) == spec.splits[options.split] else f"{len(x):,} drawn from the "
    question = Question(
        x,
        options.split,
        options.estimate.num_samples,
        options.seed,
        options.delta,
        options.compile,
        options.reuse,
        estimators=tuple(estimators),
        label=options.label or spec.title(options.split, len(x)),
        resume=options.resume or shared,
        shard=shard,
        sharing=Sharing(options.claim_expiry) if shared else None,
        writes=world is None or world.first,
        patience=0.0 if world is None else 10.0,
        out_dir=options.out_dir,
        format=options.format,
        context=tuple(context),
    )
    if len({question.place(one) for one in loaded}) < len(loaded):
        raise ValueError("expected run folders of different names with --out-dir, got two of one name")
    suiting = [suited(one, options.estimate, question.estimators) for one in loaded]
    check_asked(options.estimate, suiting)
    for one in loaded:
        question.prepare(one)
    unwritten: list[OSError] = []
    written, entries = [], []
    for one, asked in zip(loaded, suiting, strict=True):
        own = replace(question, estimators=asked)
        with at(one, own) as here:
            with progress(options.machine.quiet, str(one.folder), 1) as update:
                ev, found = evaluate_run(one, own, lambda done, total: update(completed=done, total=total))
            ev = with_sandwich_of(one, ev)
            title = f"{one.folder}: {part}{options.split} split of {spec.name}" + (
                "" if found is None else f", from {found.name if found.parent == one.folder else found}"
            )
            console.print(title, highlight=False)
            style = "markdown" if options.markdown else "terminal"
            print(ev.table(style))
            below = given_lines(one, rows, options.split, options.limit, ev)
            for line in below:
                print(line[style])
            if found is None or found.parent != own.place(one):
                try:
                    keep(one, own, ev, here)
                except OSError as error:
                    unwritten.append(error)
        written.append(
            "\n".join([f"{title}\n", ev.table("markdown"), *(f"{b['markdown']}\n" for b in below)])
        )
        entries.append(entry_of_run(one, ev))
    if shard is not None:
        console.print(
            f"shard {shard[0]} of {shard[1]} is kept in {loaded[0].folder / PARTIAL}; when all are done: the same "
            "command without --shard",
            highlight=False,
        )
    if len(entries) > 1 and not all({"ELBO", "IS"} <= set(e.evidence) for e in entries):
        target = next((e for e in entries if e.folder == options.baseline), entries[0])
        pairs = [(e.title, e.evidence.compare(target.evidence)) for e in entries if e is not target]
        lines = ["; ".join([f"{title} against {target.title}: {c}", *c.warnings]) for title, c in pairs]
        print("\n".join(lines))
        written.append("\n".join(f"- {line}" for line in lines))
    elif len(entries) > 1:
        chosen = [
            e
            for e in entries
            if options.baseline and e.folder and os.path.samefile(e.folder, options.baseline)
        ]
        table = runs_table(entries, options.split, chosen[0] if chosen else None)
        title = spec.heading(options.split, len(x), options.estimate.num_samples, part)
        if options.markdown:
            print(markdown(table, title))
        else:
            print_table(table, title)
        written.append(markdown(table, title))
    if options.out is not None and question.writes:
        try:
            write_whole(options.out, "\n".join(written))
            console.print(f"{options.out}", highlight=False, markup=False)
        except OSError as error:
            unwritten.append(error)
    refuse_unwritten(unwritten)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_script(run, Options, argv, "evaluate", __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
