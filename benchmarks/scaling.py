"""Weak scaling: as many data a rank as one rank alone has; and the ceiling, the same without communication."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from nets import Net
from settings import Settings
from timing import Row

CHILD = Path(__file__).parent / "children" / "ranks_step.py"
ALONE, CEILING = "one rank alone", "ranks without communication"
TOGETHER, ORDERED, REDUCE = "ranks, one all-reduce a step", "ranks, bitwise", "the all-reduce alone"


def bench_scaling(net: Net, settings: Settings, sizes: tuple[int, ...] = (1, 2)) -> list[Row]:
    """A table for each number of ranks, on one thread each (or one GPU each); ratios to the ceiling."""
    rows = []
    for size in sizes:
        case = f"weak scaling, {size} rank{'s' * (size > 1)} of {net.name}"
        if settings.device.type == "cuda" and size > torch.cuda.device_count():
            rows.append(Row(case, TOGETHER, "ms", note=f"{torch.cuda.device_count()} GPU here"))
            continue
        found = run_ranks(net, settings, size)
        if "error" in found:
            rows.append(Row(case, TOGETHER, "ms", note=found["error"]))
            continue
        least = min(found["times"][CEILING])
        detail = {REDUCE: f"{found['bytes'] / 2**20:.1f} MiB, {found['backend']}"}
        for name, times in found["times"].items():
            scaled = tuple(1e3 * t for t in times)
            rows.append(Row(case, name, "ms", scaled, min(times) / least, detail=detail.get(name, "")))
    return rows


def run_ranks(net: Net, settings: Settings, size: int) -> dict:
    """What the first rank measures."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "times.json"
        request = {
            "net": net.as_json(),
            "repeats": settings.repeats,
            "calls": 1 if settings.quick else 4,
            "device": settings.device.type,
            "out": str(out),
        }
        done = subprocess.run(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}"),
                *(str(CHILD), json.dumps(request)),
            ],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        if done.returncode or not out.exists():
            said = [line.rpartition("]:")[2].strip() for line in done.stderr.splitlines() if "Error" in line]
            return {"error": re.sub(r"\[[^]]*\]", "", (said or ["its ranks ended"])[0])[:200]}
        found: dict = json.loads(out.read_text())
        return found
