"""Error of ln p(x) against its cost, of every way to estimate it, on single data of a trained run.

    python benchmarks/evidence_cost.py runs/standard-diagonal --limit 50 --out docs/figures/evidence_cost.png

Error: the absolute difference to a reference, `OwnIS` with 100,000 draws of another seed, in nats; its median over data
(the typical datum) and its maximum (the hardest, of which the reference has an error as well). Cost: CPU seconds per
datum on one thread, fits, pilots and compilation included. The error of independent draws falls with the square root of
the cost: the last column, median error x sqrt(seconds), is what tells estimators apart.
"""

from __future__ import annotations

import argparse
import functools
import math
import time
from pathlib import Path
from typing import Any

import torch

import pyrovae as pv
from pyrovae import plots
from pyrovae.plots.style import LINES, canvas

WAYS: dict[str, list[Any]] = {
    "IS": [pv.IS(500), pv.IS(5000), pv.IS(50_000)],
    "OwnIS": [pv.OwnIS(1000), pv.OwnIS(5000), pv.OwnIS(20_000)],
    "Adaptive": [pv.Adaptive(0.2), pv.Adaptive(0.05)],
    "AIS": [pv.AIS(30), pv.AIS(100), pv.AIS(300), pv.AIS(1000)],
    "SMC": [pv.SMC(30, 64), pv.SMC(100, 64), pv.SMC(300, 64)],
}
MEDIAN, SECONDS = 3, 6  # columns of a row
REFERENCE, REFERENCE_SEED = pv.OwnIS(100_000), 99


def measure(run: pv.Run, x: torch.Tensor, reference: torch.Tensor, estimator: Any, seed: int) -> list[str]:
    """Setting, ln p(x), errors, share of the data that support an interval, seconds, and error x sqrt(seconds)."""
    started = time.process_time()
    (e,) = pv.evidence(run.model, run.guide, x, estimators=[estimator], seed=seed, compile=True).values()
    seconds = (time.process_time() - started) / len(x)
    errors = (e.per_datum - reference).abs()
    error = float(errors.median())
    settings = getattr(estimator, "tolerance", None) or getattr(estimator, "num_temperatures", e.num_samples)
    supported = f"{1 - e.unreliable_share:.0%}"
    figures = (
        f"{e.log_evidence:.3f}",
        f"{error:.4f}",
        f"{float(errors.max()):.3f}",
        supported,
        f"{seconds:.3f}",
    )
    return [f"{settings:,}", *figures, f"{error * math.sqrt(seconds):.4f}"]


def picture(rows: list[list[str]]) -> Any:
    """Error against seconds, with lines of equal error x sqrt(seconds)."""
    with canvas(None, 4.2, 3.2) as ax:
        seconds = [float(row[SECONDS]) for row in rows]
        low, high = min(seconds) / 2, max(seconds) * 2
        for cost in (1e-3, 1e-2, 1e-1, 1.0, 10.0):
            ax.plot([low, high], [cost / math.sqrt(s) for s in (low, high)], color="#cccccc", linewidth=0.7)
        for way, colour in zip(WAYS, LINES, strict=False):
            own = [row for row in rows if row[0] == way]
            ax.plot(
                [float(r[SECONDS]) for r in own],
                [float(r[MEDIAN]) for r in own],
                "o-",
                color=colour,
                label=way,
            )
        errors = [float(row[MEDIAN]) for row in rows]
        ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(min(errors) / 2, max(errors) * 2))
        ax.set_xlabel("CPU seconds per datum")
        ax.set_ylabel("median error of ln p(x) [nats]")
        ax.legend(loc="lower left")
        return ax.figure


def main() -> None:
    """Prints the table in Markdown, row by row, and draws the figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="run folder")
    parser.add_argument("--limit", type=int, default=50, help="test data, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="picture")
    options = parser.parse_args()
    torch.set_num_threads(1)
    say = functools.partial(print, flush=True)
    run = pv.load(options.run)
    random = torch.Generator().manual_seed(options.seed)
    x = run.data.test[torch.randperm(len(run.data.test), generator=random)[: options.limit]]
    (known,) = pv.evidence(
        run.model, run.guide, x, estimators=[REFERENCE], seed=REFERENCE_SEED, compile=True
    ).values()
    say(f"reference: {known}\n")
    say(
        "| estimator | setting | ln p(x) | median error | largest | supported | seconds per datum | error × √seconds |"
    )
    say("|---|---:|---:|---:|---:|---:|---:|---:|")
    rows = []
    for way, estimators in WAYS.items():
        for estimator in estimators:
            rows.append([way, *measure(run, x, known.per_datum, estimator, options.seed)])
            say("| " + " | ".join(rows[-1]) + " |")
    if options.out is not None:
        plots.save(picture(rows), options.out)


if __name__ == "__main__":
    main()
