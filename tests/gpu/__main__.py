"""`make gpu`: every CUDA test, checks of training and evidence on the device, the bench rows; within six minutes.

Prints as it goes. Each step is a process of its own with a time limit: an illegal memory access, a hang or a failure
costs that step alone. Steps that time nothing run side by side, the others alone after them. `gpu.json` has all
findings as they are made, `gpu.md` a block for docs/performance.md. Without a GPU it says so, and runs nothing.

    python -m tests.gpu                                # or make gpu
    python -m tests.gpu --only training --only bench
    python -m tests.gpu --device cpu --quick           # a rehearsal, whose figures mean nothing
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from .checks import CHECKS

ROOT = Path(__file__).parents[2]
BENCH = ("step-400", "step-200-200", "epoch", "importance", "test-set")
ALONE = ("evaluate", "bench")  # they time
LIMITS = {"tests": 150.0, **{name: limit for name, (_, limit) in CHECKS.items()}, "bench": 150.0}
TOTAL = 360.0
# (part of the case, row) -> what its least time must be at most.
ABSOLUTE = {("one epoch", "pv, one epoch"): 45.0}


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument(
        "--only", action="append", choices=list(LIMITS), metavar="STEP", help=", ".join(LIMITS)
    )
    parser.add_argument("--out", type=Path, default=ROOT, help="folder of gpu.json and gpu.md")
    parser.add_argument("--peers", help="interpreter with NumPyro and Pythae, for the bench")
    parser.add_argument("--step", choices=list(CHECKS), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.device == "cpu" and not options.quick:
        parser.error("expected --quick with --device cpu, which is a rehearsal")
    return options


class Report:
    """Findings, in the file as soon as they are made.

    Attributes:
        steps: by name: seconds, findings, and why it failed.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder = folder
        self.steps: dict[str, dict[str, Any]] = {}
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a rehearsal on a CPU"
        self.machine = f"{name}; torch {torch.__version__}"
        self._lock = threading.Lock()

    def say(self, step: str, text: str) -> None:
        print(f"  {step}: {text}", flush=True)

    def add(self, step: str, what: str, value: Any, met: bool | None) -> None:
        said = {True: "ok", False: "MISSED", None: ""}[met]
        with self._lock:
            self.steps[step]["findings"].append({"what": what, "value": value, "met": met})
            self.say(step, f"{what}: {_text(value)} {said}")
            self._write()

    @property
    def missed(self) -> list[str]:
        """What was not met, in words."""
        out = []
        for name, step in self.steps.items():
            out += [f"{name}: {f['what']}" for f in step["findings"] if f["met"] is False]
            out += [f"{name}: {step['failed']}"] if step["failed"] else []
        return out

    def write(self) -> None:
        """Writes both files."""
        with self._lock:
            self._write()

    def _write(self) -> None:
        content = {"machine": self.machine, "steps": self.steps, "missed": self.missed}
        (self.folder / "gpu.json").write_text(json.dumps(content, indent=2) + "\n")
        lines = [self.machine, "", "| step | what | value | |", "|---|---|---:|---|"]
        for name, step in self.steps.items():
            for f in step["findings"]:
                met = {True: "met", False: "**missed**", None: ""}[f["met"]]
                lines.append(f"| {name} | {f['what']} | {_text(f['value'])} | {met} |")
            if step["failed"]:
                lines.append(f"| {name} | {step['failed']} | – | **failed** |")
        (self.folder / "gpu.md").write_text("\n".join(lines) + "\n")


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def command(name: str, options: argparse.Namespace, folder: Path) -> list[str]:
    """Of the process that makes a step."""
    python = [sys.executable]
    quick = ["--quick"] if options.quick else []
    if name == "tests":
        return [*python, "-m", "pytest", "-m", "cuda", "-n", "0", "-q", "--no-header", "-rs", "tests"]
    if name == "bench":
        chosen = ["--only", "memory"] if options.quick else [w for case in BENCH for w in ("--only", case)]
        peers = ["--peers", options.peers] if options.peers else []
        limits = ["--limit", "60", "--repeats", "3" if options.quick else "5"]
        figures = ["--json", str(folder / "bench.json")]
        return [
            *python,
            "benchmarks/run.py",
            "--device",
            options.device,
            *chosen,
            *peers,
            *limits,
            *figures,
            *quick,
        ]
    return [*python, "-m", "tests.gpu", "--device", options.device, "--step", name, *quick]


def run_step(name: str, options: argparse.Namespace, report: Report, limit: float, share: int = 1) -> None:
    """One step in a process of its own, one of `share` at once; its findings are kept as they come."""
    report.say(name, f"begins, at most {limit:.0f} s")
    threads = max(1, (os.cpu_count() or 1) // share)
    start = time.perf_counter()
    process = subprocess.Popen(
        command(name, options, report.folder),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
    )
    timer = _Timer(process, limit)
    last = ""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("FINDING "):
            report.add(name, *json.loads(line.removeprefix("FINDING ")))
        elif line.strip():
            last = line.strip()
            report.say(name, line.rstrip())
    code = process.wait()
    timer.stop()
    step = report.steps[name]
    step["seconds"] = round(time.perf_counter() - start, 1)
    if timer.fired:
        step["failed"] = f"not done within {limit:.0f} s"
    elif code != 0 and not (name == "tests" and code == 5):  # 5: no test is marked
        step["failed"] = f"ended with {code}: {last[:200]}"
    elif name == "tests":
        step["findings"].append({"what": last[:200], "value": "pytest", "met": True})
    if name == "bench":
        keep_bench(report)
    report.say(name, f"FAILED: {step['failed']}" if step["failed"] else f"done in {step['seconds']} s")
    report.write()


def keep_bench(report: Report) -> None:
    """The bench's rows and targets, as far as it came."""
    path = report.folder / "bench.json"
    if not path.is_file():
        return
    found = json.loads(path.read_text())
    path.unlink()
    for row in found["rows"]:
        value = row["note"] if row["min"] is None else row["min"]
        wanted = next(
            (v for (case, what), v in ABSOLUTE.items() if case in row["case"] and what == row["what"]), None
        )
        met = None if wanted is None or row["min"] is None else row["min"] <= wanted
        limit = "" if wanted is None else f" (<= {wanted:g})"
        report.add("bench", f"{row['case']}: {row['what']}, {row['unit']}{limit}", value, met)
    for target in found["targets"]:
        what = f"{target['target']}, {target['case']} (wanted {target['wanted']})"
        report.add("bench", what, target["ratio"], target["met"])


class _Timer:
    """Ends a process that takes too long."""

    def __init__(self, process: subprocess.Popen[str], seconds: float) -> None:
        self.fired = False
        self._process = process
        self._timer = threading.Timer(seconds, self._fire)
        self._timer.daemon = True
        self._timer.start()

    def _fire(self) -> None:
        self.fired = True
        self._process.kill()

    def stop(self) -> None:
        self._timer.cancel()


def main(argv: list[str] | None = None) -> int:
    options = parse(argv)
    if options.device == "cuda" and not torch.cuda.is_available():
        print("No CUDA device that torch sees: nothing was run. (--device cpu --quick rehearses the steps.)")
        return 0
    device = torch.device(options.device)
    if options.step:
        check, _ = CHECKS[options.step]
        for finding in check(device, options.quick):
            print("FINDING " + json.dumps(finding), flush=True)
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    report, start = Report(options.out, device), time.perf_counter()
    wanted = [name for name in LIMITS if name in (options.only or LIMITS)]
    report.steps = {name: {"findings": [], "failed": None, "seconds": None} for name in wanted}

    def make(name: str, share: int = 1) -> None:
        left = TOTAL - (time.perf_counter() - start)
        if left < 5:
            report.steps[name]["failed"] = f"not begun: {TOTAL:.0f} s are over"
        else:
            run_step(name, options, report, min(LIMITS[name], left), share)

    together = [name for name in wanted if name not in ALONE]
    with ThreadPoolExecutor(min(len(together), os.cpu_count() or 1) or 1) as pool:
        for made in [pool.submit(make, name, len(together)) for name in together]:
            made.result()
    for name in wanted:
        if name in ALONE:
            make(name)
    report.write()
    print(f"{time.perf_counter() - start:.0f} s; gpu.json and gpu.md in {options.out}")
    for line in report.missed:
        print(f"MISSED {line}")
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
