"""The folder of a comparison: its table, histories and pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pyrovae import plots, runs
from pyrovae.comparing import Entry, Table, markdown
from pyrovae.files import write_whole
from pyrovae.training.logging.history import Row, write_history

from ..drawing.pictures import draw_pictures
from ..options.machine import DeviceName, FormatName
from .reopening import load_run
from .running import console, write_all

CURVES = 6  # more L_K curves than this cannot be told apart


def save_comparison(
    out: Path,
    entries: Sequence[Entry],
    table: Table,
    title: str,
    options: dict[str, Any],
    *,
    device: DeviceName = "auto",
    format: FormatName = "png",
    failed: Sequence[OSError] = (),
) -> None:
    """Writes table.md, metrics.csv (all rows), pictures of the comparison and of its best program.

    Args:
        out: folder of the comparison.
        entries: rows with figures; the pictures of several seeds are of the first, which they say.
        table, title: as they are shown.
        options: of the comparison, in JSON's types.
        device: where the best program is run.
        format: of pictures.
        failed: why files could not be written before.

    Raises:
        NotKept: naming what could not be written.
    """
    ranked = sorted(entries, key=_height, reverse=True)
    best = ranked[0]
    # Prior, guide and objective name a cell of the grid; any other has one name.
    grid = all(not e.name and e.label[1] for e in entries)
    histories: dict[Any, list[Row]] = {e.label if grid else e.title: e.history for e in entries if e.history}
    pictures: list[str] = []
    seeded = any(len(e.evidences) > 1 for e in entries)
    told = f"seed {next(iter(best.evidences))}, the first of {len(best.evidences)}" if seeded else ""

    def picture(name: str, make: Callable[[], Any]) -> Callable[[], None]:
        def write() -> None:
            shown = make()
            if told:
                shown.get_figure(root=True).suptitle(told, fontsize=8)
            plots.save(shown, out / f"{name}.{format}")
            pictures.append(f"{name}.{format}")

        return write

    def of_best() -> None:
        if best.folder is not None and best.folder.is_dir():
            # Trained by this command, or loaded by it with the consent that it needs.
            loaded = load_run(best.folder, device, trust=True)
            pictures.extend(draw_pictures(loaded.pair, loaded.data, out, format=format))

    rows: list[Any] = [
        {"cell": e.title, **({"seed": seed} if seeded else {}), **row}
        for e in entries
        for seed, history in e.histories.items()
        for row in history
    ]
    curves = {e.title: e.evidence for e in ranked[:CURVES]}
    writers: list[Callable[[], None]] = [
        lambda: write_whole(out / "table.md", markdown(table, title)),
        lambda: write_history(out / runs.HISTORY, rows),
    ]
    if histories:
        writers.append(picture("training", lambda: plots.plot_histories(histories)))
    writers += [
        picture("evidence", best.evidence.plot),
        picture("lk_curves", lambda: plots.plot_lk_curve(curves)),
    ]
    if not failed:
        writers.append(of_best)
    write_all(writers, failed)
    # Last: with it the comparison is finished, and not continued any more.
    name = best.name or (best.folder.name if best.folder is not None else best.title)
    runs.write_config(out, {"compare": options, "best": name})
    shown = ", ".join(pictures)
    console.print(f"{out}: table.md, {runs.HISTORY}, {shown} (best: {best.title}{told and f', {told}'})")


def _height(entry: Entry) -> float:
    """Mean over seeds of the figure with the strongest claim."""
    found = [ev.best.log_evidence for ev in entry.evidences.values()]
    return sum(found) / len(found)
