"""Former evaluations of a run folder: whether one answers a question, and under which name one is kept."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ..evidence import ELBO, IS, Evidence
from ..evidence.data_hash import data_hash
from .evidence_file import TEST, split_of
from .run import Run


def found_in(
    run: Run,
    rows: tuple[Tensor, ...],
    asked: Sequence[Any],
    seed: int,
    delta: float,
    split: str = TEST,
    place: Path | None = None,
) -> tuple[Evidence, Path] | None:
    """Evidence of a run that answers this very question, and its file: in `place`, or in the run's folder.

    It is of these weights, data, estimators, seed and delta.
    """
    stem = stem_of(split)
    names = dict.fromkeys((stem, f"{stem}-{len(rows[0])}", stem_of(TEST)))  # the last: of folders of before
    for folder in dict.fromkeys((place or run.folder, run.folder)):
        for name in names:
            ev = _held(run, folder, name)
            if ev is not None and _answers(ev, run, rows, asked, seed, delta):
                return ev, folder / f"{name}.nc"
    return None


def _answers(
    ev: Evidence, run: Run, rows: tuple[Tensor, ...], asked: Sequence[Any], seed: int, delta: float
) -> bool:
    if (
        not {"weights_hash", "measure"} <= set(ev.attributes)
        or ev.attributes.get("code") != run.code
        or [e.name for e in asked] != list(ev)
    ):
        return False
    # A file that does not say what was asked is of ELBO and IS alone.
    samples = ev["IS"].num_samples if "IS" in ev else None
    default = repr([ELBO(), IS(samples)]) if samples else ""
    wanted = (data_hash(*rows), repr(asked), seed, delta)
    answered = (
        ev.attributes.get("data_hash"),
        ev.attributes.get("asked", default),
        ev.attributes.get("seed"),
        next((e.delta for e in ev.values() if e.certificate is not None), delta),
    )
    return wanted == answered


def marked(ev: Evidence, run: Run, asked: Sequence[Any], split: str) -> Evidence:
    """The evidence with what it is of: weights as they were loaded, program, code, split and question."""
    own = {**run.identity, "split": split, "asked": repr(list(asked))}
    return replace(ev, attributes={**ev.attributes, **own})


def name_of(run: Run, place: Path, split: str, num_data: int) -> str:
    """Name of the files of a split: its own, and a look at some data does not take the place of one at more."""
    stem = stem_of(split)
    found = _held(run, place, stem)
    more = found is not None and split_of(found) == split and len(found.x) > num_data
    return f"{stem}-{num_data}" if more else stem


def stem_of(split: str) -> str:
    """How names of the files of a split begin."""
    return "evidence" if split == TEST else f"evidence-{split}"


def make_way(run: Run, place: Path, name: str, split: str) -> None:
    """Gives evidence that has this name, and is of another split, the name of its own: of folders of before."""
    found = _held(run, place, name)
    if found is None or split_of(found) == split or split_of(found) not in ("train", "valid"):
        return
    other = name_of(run, place, split_of(found), len(found.x))
    for suffix in (".nc", ".png", ".pdf", ".svg"):
        if (place / f"{name}{suffix}").is_file() and not (place / f"{other}{suffix}").exists():
            os.replace(place / f"{name}{suffix}", place / f"{other}{suffix}")


def _held(run: Run, place: Path, name: str) -> Evidence | None:
    """Evidence of this program and its weights in a file of that name; None where there is none that can be read."""
    try:
        return run.evidence_in(place / f"{name}.nc")
    except ValueError:  # damaged: it is written anew
        return None
