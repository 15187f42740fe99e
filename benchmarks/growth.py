"""How a step's time grows with batch and width: Pyro eager, ours, and the floor."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import matplotlib
from nets import Net
from settings import Settings
from steps import floor, our_step, pyro_step
from timing import Here, Row, Timed, interleaved, rows

from pyrovae.plots.saving import save
from pyrovae.plots.style import BLUE, GREY, ORANGE, STYLE, new_figure

BATCHES = (32, 64, 128, 256, 512, 1024, 2048, 4096)
WIDTHS = (100, 200, 400, 800, 1600)
PYRO, FLOOR = "pyro.infer.SVI", "products and Adam alone"


def bench_growth(
    net: Net,
    settings: Settings,
    batches: tuple[int, ...] = BATCHES,
    widths: tuple[int, ...] = WIDTHS,
) -> list[Row]:
    """Rows for each batch at the net's width, then for each width at the net's batch."""
    if settings.quick:
        batches, widths = batches[::3], widths[::2]
    out = []
    for batch in batches:
        out += _size(dataclasses.replace(net, batch=batch), settings, f"growth, batch {batch}")
    for width in widths:
        out += _size(dataclasses.replace(net, hidden=(width,)), settings, f"growth, width {width}")
    return out


def _size(net: Net, settings: Settings, case: str) -> list[Row]:
    device = settings.device
    x = net.data(device)
    runs: dict[str, Timed] = {
        PYRO: Here(pyro_step(net.vae(device), x), device),
        settings.ours: Here(our_step(net.vae(device), x, True), device),
        FLOOR: Here(floor(net, device), device),
    }
    # As long a block as at batch 128, whatever the size.
    calls = max(2, round(settings.calls * min(1.0, 128 / net.batch)))
    return rows(case, runs, interleaved(runs, settings.repeats, calls), settings.ours)


def figure(rows: list[Row], net: Net, ours: str, where: str, path: Path) -> None:
    """Two log-log panels of the minima of `bench_growth`, `where` naming the machine."""
    looks = {PYRO: (ORANGE, "o"), ours: (BLUE, "s"), FLOOR: (GREY, "")}
    with matplotlib.rc_context(STYLE):
        whole = new_figure(6.8, 2.8)
        left, right = whole.subplots(1, 2, sharey=True)
        sides = {
            "batch": (left, f"batch size ({net.data_dim}-{net.hidden[0]}-{net.latent_dim})"),
            "width": (right, f"hidden width (batch {net.batch})"),
        }
        for kind, (ax, label) in sides.items():
            for what, (colour, marker) in looks.items():
                points = [
                    (int(r.case.split()[-1]), r.least)
                    for r in rows
                    if r.what == what and f" {kind} " in r.case and r.least is not None
                ]
                if points:
                    style = "-" if marker else "--"
                    ax.plot(*zip(*points, strict=True), style, marker=marker, color=colour, label=what)
            ax.set_xscale("log", base=2 if kind == "batch" else 10)
            ax.set_yscale("log")
            ticks = sorted({int(r.case.split()[-1]) for r in rows if f" {kind} " in r.case})
            ax.set_xticks(ticks, [str(t) for t in ticks], minor=False)
            ax.set_xticks([], minor=True)
            ax.set_xlabel(label)
        left.set_ylabel("ms per SVI step (minimum)")
        left.yaxis.set_major_formatter("{x:g}")
        left.legend(title=where)
        save(whole, path)
