"""Speed and memory as ratios, measured interleaved: `make bench`.

Absolute times on shared machines mean little; every row is a ratio to something timed in turn
with it, at the minimum and the median over repeats. `--json FILE` keeps the figures.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pyro
import torch
from families import bench_families
from growth import bench_growth, figure
from importance import bench_importance, bench_test_set
from limits import rows_of
from memory import bench_memory
from nets import CONV, DEEP, MNIST, TINY
from rich.console import Console
from rich.table import Table
from scaling import bench_scaling
from settings import PEERS_VARIABLE, Settings
from steps import bench_epoch, bench_step
from streaming import bench_streaming
from targets import targets
from timing import Row

CASES: dict[str, Callable[[Settings], list[Row]]] = {
    "step-400": lambda s: bench_step(MNIST, s),
    "step-200-200": lambda s: bench_step(DEEP, s),
    "step-64": lambda s: bench_step(TINY, s),
    "step-conv": lambda s: bench_step(CONV, s),
    "epoch": lambda s: bench_epoch(MNIST, s, 6400 if s.quick else 60_000),
    "families": bench_families,
    "importance": lambda s: bench_importance(DEEP, s),
    "test-set": lambda s: bench_test_set(DEEP, s, *((500, 500) if s.quick else (10_000, 5000))),
    "memory": lambda s: bench_memory(DEEP, s),
    "scaling": lambda s: bench_scaling(MNIST, s),
    "stream": lambda s: bench_streaming(MNIST, s, 6400 if s.quick else 60_000),
    "growth": lambda s: bench_growth(MNIST, s),
}
# Minutes to hours where no GPU is: asked for by name.
EXTRA = {"growth"}
GPU_ONLY = {"test-set"}


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", choices=CASES, action="append", metavar="CASE", help=f"of {', '.join(CASES)}"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--repeats", type=int, help="interleaved repeats of each (default: 15)")
    parser.add_argument("--quick", action="store_true", help="3 repeats, short blocks, less data")
    parser.add_argument("--peers", metavar="PYTHON", help=f"interpreter that has them (or {PEERS_VARIABLE})")
    parser.add_argument(
        "--limit", type=float, metavar="SECONDS", help="for each case; what takes longer says so"
    )
    parser.add_argument("--growth", action="store_true", help="the same as --only growth")
    parser.add_argument("--figure", type=Path, help="draw the growth of times here (.png, .pdf)")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument(
        "--markdown", type=Path, help="write the tables here, as docs/performance.md has them"
    )
    options = parser.parse_args(argv)
    if options.repeats is None:
        options.repeats = 3 if options.quick else 15
    if options.repeats < 1:
        parser.error(f"expected --repeats >= 1, got {options.repeats}")
    if options.limit is not None and not options.limit > 0:
        parser.error(f"expected --limit > 0 seconds, got {options.limit:g}")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("expected a CUDA device that torch sees, got none; try --device cpu")
    options.only = (options.only or []) + (["growth"] if options.growth else [])
    if options.figure and options.only and "growth" not in options.only:
        parser.error(f"expected --growth with --figure, got --only {' '.join(options.only)}")
    if not options.only:
        skipped = set() if options.figure else EXTRA
        skipped |= set() if options.device == "cuda" else GPU_ONLY
        options.only = [name for name in CASES if name not in skipped]
    return options


def machine(settings: Settings) -> str:
    """What the figures hold for."""
    if settings.device.type == "cuda":
        where = torch.cuda.get_device_name(settings.device)
    else:
        where = f"CPU, {torch.get_num_threads()} threads"
    return f"{where}; torch {torch.__version__}, pyro {pyro.__version__}, float32"


def show(rows: list[Row], settings: Settings, console: Console) -> None:
    table = Table(title=machine(settings))
    for column in ("case", "what", "min", "median", "unit", "ratio (min)"):
        table.add_column(column, justify="right" if column in ("min", "median", "ratio (min)") else "left")
    last = None
    for row in rows:
        figures = row.as_json()
        case, last = ("" if row.case == last else row.case), row.case
        if row.least is None:
            table.add_row(case, f"{row.what}: {row.note}", "–", "–", row.unit, "–")
        else:
            numbers = (f"{figures['min']:.3f}", f"{figures['median']:.3f}", row.unit, f"{row.ratio:.2f}")
            table.add_row(case, row.what, *numbers)
    console.print(table)


def judge(rows: list[Row], settings: Settings, console: Console) -> list[dict[str, object]]:
    """The table of targets, for what was measured."""
    table = Table("target", "case", "ratio of minima", "wanted", "", title="targets")
    out: list[dict[str, object]] = []
    for target in targets(settings):
        for case, ratio in target.measured(rows):
            wanted = f"{'≤' if target.at_most else '≥'} {target.limit:g}"
            met = target.met(ratio)
            table.add_row(target.what, case, f"{ratio:.3f}", wanted, "met" if met else "missed")
            out.append({"target": target.what, "case": case, "ratio": ratio, "wanted": wanted, "met": met})
    if out:
        console.print(table)
    return out


def markdown(rows: list[Row], judged: list[dict[str, object]], title: str) -> str:
    """Both tables, for a document."""
    lines = [
        title,
        "",
        "| case | what | min | median | unit | ratio of minima |",
        "|---|---|---:|---:|---|---:|",
    ]
    last = None
    for row in rows:
        figures, case = row.as_json(), "" if row.case == last else row.case
        last = row.case
        if row.least is None:
            lines.append(f"| {case} | {row.what}: {row.note} | – | – | {row.unit} | – |")
        else:
            detail = f" ({row.detail})" if row.detail else ""
            numbers = f"{figures['min']:.3f} | {figures['median']:.3f} | {row.unit} | {row.ratio:.2f}"
            lines.append(f"| {case} | {row.what}{detail} | {numbers} |")
    lines += ["", "| target | case | ratio of minima | wanted | |", "|---|---|---:|---|---|"]
    for j in judged:
        met = "met" if j["met"] else "**missed**"
        lines.append(f"| {j['target']} | {j['case']} | {j['ratio']:.2f} | {j['wanted']} | {met} |")
    return "\n".join(lines) + "\n"


def keep(path: Path | None, rows: list[Row], judged: list[dict[str, object]], settings: Settings) -> None:
    """The figures so far, where they are wanted."""
    if path is not None:
        kept = {"machine": machine(settings), "rows": [r.as_json() for r in rows], "targets": judged}
        path.write_text(json.dumps(kept, indent=2) + "\n")


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    given = {"peers": options.peers} if options.peers else {}
    calls = 5 if options.quick else 20
    settings = Settings(torch.device(options.device), options.repeats, calls, options.quick, **given)
    rows: list[Row] = []
    console = Console(width=120)
    for name in options.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        found = rows_of(name, functools.partial(CASES[name], settings), options.limit)
        show(found, settings, console)  # now: what comes after may be stopped
        rows += found
        keep(options.json, rows, [], settings)
    judged = judge(rows, settings, console)
    keep(options.json, rows, judged, settings)
    if options.markdown:
        options.markdown.write_text(markdown(rows, judged, machine(settings)))
    if options.figure:
        grown = [r for r in rows if r.case.startswith("growth")]
        figure(grown, MNIST, settings.ours, machine(settings).split(";")[0], options.figure)
    return 0


if __name__ == "__main__":
    sys.exit(main())
