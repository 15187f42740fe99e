"""Run folders evaluated on the same data, so that they can be compared datum by datum."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import pyrovae as pv
from pyrovae import plots, runs
from pyrovae.data import Dataset
from pyrovae.evidence import Sharing
from pyrovae.evidence.core.compile_when import PAIRS
from pyrovae.evidence.data_hash import data_hash
from pyrovae.files import check_writable
from pyrovae.programs import check_alike
from pyrovae.runs.reusing import found_in, make_way, marked, name_of

from ..options.measuring import measure_of_run
from .attending import Attendance, attending, remove
from .running import console

CompileName = Literal["auto", "on", "off"]
PARTIAL = runs.PARTIAL


@dataclass(frozen=True)
class Question:
    """Question to every run.

    Attributes:
        x: the data, all or some of the split.
        split: their name.
        num_samples, seed, delta: as in `pv.evidence`.
        compile: run the weights as one compiled graph.
        reuse: take evidence.nc where it answers this very question of these very weights.
        estimators: default: ELBO and IS.
        label: what the data are, for tables.
        resume: keep partial results in the run folder, and go on from there.
        shard: (i, n): only every n-th chunk of the data.
        sharing: with other processes that share the run folder.
        writes: whether this process writes evidence.nc and the picture.
        patience: seconds that the other ranks have to leave, where this one alone writes.
        out_dir: folder for what is written of each run, by the run's name; default: the run folder.
        context: what the programs take after x.
    """

    x: Tensor
    split: str
    num_samples: int
    seed: int = 0
    delta: float = 0.05
    compile: CompileName = "auto"
    reuse: bool = False
    estimators: tuple[Any, ...] = ()
    label: str | None = None
    resume: bool = False
    shard: tuple[int, int] | None = None
    sharing: Sharing | None = None
    writes: bool = True
    patience: float = 0.0
    out_dir: Path | None = None
    format: str = "png"
    context: tuple[Tensor, ...] = ()

    def place(self, run: pv.Run) -> Path:
        """Folder in which results of a run are written."""
        return place_of(run, self.out_dir)

    def prepare(self, run: pv.Run) -> None:
        """Makes that place, and tells before any work if it cannot be written.

        Raises:
            OSError: it cannot be made or written.
        """
        prepare(self.place(run))

    @property
    def asked(self) -> list[Any]:
        """The estimators."""
        return list(self.estimators) or [pv.ELBO(), pv.IS(self.num_samples)]

    @property
    def compiles(self) -> bool:
        """Whether to compile; `auto` decides by the number of pairs."""
        if self.compile == "auto":
            return self.num_samples * len(self.x) >= PAIRS
        return self.compile == "on"


def place_of(run: pv.Run, out_dir: Path | None) -> Path:
    """Folder of a run's results: one of its name within `out_dir`, or the run folder."""
    if out_dir is not None:
        return out_dir / Path(os.path.realpath(run.folder)).name
    runs.check_own(run.folder, PARTIAL)
    return run.folder


def prepare(place: Path, option: str = "--out-dir") -> None:
    """Makes that place, and tells before any work if it cannot be written; `option` chooses another one.

    Raises:
        OSError: it cannot be made or written.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        check_writable(place)
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}; try {option} with a folder that can be written"
        raise OSError(reason) from None


def some(rows: tuple[Tensor, ...], limit: int | None) -> tuple[Tensor, ...]:
    """`limit` rows drawn under a fixed seed, in their order: some splits come sorted by class."""
    number = len(rows[0])
    if limit is None or limit >= number:
        return rows
    drawn = torch.randperm(number, generator=torch.Generator().manual_seed(0))[:limit].sort().values
    return tuple(t[drawn.to(t.device)] for t in rows)


def load_runs(
    folders: Sequence[Path],
    root: Path | None,
    device: torch.device,
    split: str,
    limit: int | None,
    trust: bool = False,
    place: Path | None = None,
) -> tuple[list[pv.Run], tuple[Tensor, ...]]:
    """The runs, and the data `(x, *context)` that all of them are asked about.

    Args:
        folders, root, device, trust: as of `runs.load`.
        split, limit: which data; see `some`.
        place: file of the runs' data, where it is not where it was.

    Raises:
        ValueError: a folder twice, a limit < 1, runs on different data, or masses and densities together; before
            any is evaluated.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"expected --limit >= 1, got {limit}")
    if len(set(map(os.path.realpath, folders))) < len(folders):
        raise ValueError(f"expected each run folder once, got {', '.join(map(str, folders))}")
    loaded: list[pv.Run] = []
    held: dict[str, Dataset] = {}  # one copy of a data set serves all runs on it
    first: tuple[Tensor, ...] | None = None
    for folder in folders:
        run = runs.load(folder, root, device, trust=trust, data=place)
        data = held.setdefault(run.spec.hash, run.data)
        run = dataclasses.replace(run, given=data)
        rows = some(data.arguments(split), limit)
        if first is None:
            first = rows
        elif data_hash(*rows) != data_hash(*first):
            raise ValueError(
                f"expected runs on the same data, got {loaded[0].folder} on {_described(loaded[0])} and {folder} on "
                f"{_described(run)}; try one call for each data set"
            )
        loaded.append(run)
    assert first is not None
    if len(loaded) > 1:
        check_alike([(str(run.folder), measure_of_run(run, *first)) for run in loaded])
    return loaded, first


def at(run: pv.Run, question: Question) -> AbstractContextManager[Attendance | None]:
    """This process at the evaluation of a run, where it is shared with others."""
    if question.sharing is None:
        return nullcontext()
    return attending(question.place(run) / PARTIAL, question.sharing.expiry)


def evaluate_run(
    run: pv.Run, question: Question, progress: Callable[[int, int], None] | None = None
) -> tuple[pv.Evidence, Path | None]:
    """The evidence of a run; and the file that held it, in its place or in the run's folder. `keep` writes it."""
    # Who comes late to a shared evaluation finds what the others have kept.
    if question.reuse or question.sharing is not None:
        rows = (question.x, *question.context)
        found = found_in(
            run, rows, question.asked, question.seed, question.delta, question.split, question.place(run)
        )
        if found is not None:
            return found
    ev = pv.evidence(
        run.model,
        run.guide,
        question.x,
        *question.context,
        estimators=question.asked,
        seed=question.seed,
        delta=question.delta,
        compile=question.compiles,
        progress=progress,
        label=question.label,
        resume=question.place(run) / PARTIAL if question.resume else None,
        shard=question.shard,
        sharing=question.sharing,
    )
    return marked(ev, run, question.asked, question.split), None


def keep(run: pv.Run, question: Question, ev: pv.Evidence, here: Attendance | None = None) -> None:
    """Writes evidence.nc and its picture (but not of a shard); then partial results have done their work.

    Another split, and a look at some data where there is one at more, have names of their own, which are said.

    Args:
        run, question, ev: as of `evaluate_run`.
        here: this process, at a shared evaluation.

    Raises:
        OSError: the place cannot be written. What is to be shown must have been shown before.
    """
    if question.shard is not None or not question.writes:
        return
    place = question.place(run)
    name = name_of(run, place, question.split, len(question.x))
    make_way(run, place, name, question.split)
    runs.write_evidence(ev, place / f"{name}.nc")
    if f"{name}.nc" != runs.EVIDENCE:
        console.print(f"wrote {place / name}.nc", highlight=False, markup=False)
    try:
        figure = ev.plot()
    except ValueError as error:  # no finite estimate: the figures are kept, without a picture
        console.print(f"left out: picture of the evidence: {error}", highlight=False, markup=False)
    else:
        plots.save(figure, place / f"{name}.{question.format}", run.weights_hash)
    remove(ev.partials, here, question.patience)


def _described(run: pv.Run) -> str:
    how = f", {run.spec.binarisation}" if run.spec.binarisation else ""
    how += f", given {', '.join(run.spec.given)}" if run.spec.given else ""
    return f"{run.spec.name} ({run.spec.support}{how}, seed {run.spec.seed})"
