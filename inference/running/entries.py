"""Rows of a table of runs: evidence, gaps of a sandwich, seconds, history."""

from __future__ import annotations

import pyrovae as pv
from pyrovae.comparing import Entry
from pyrovae.json_files import read_json

SANDWICH = "sandwich.json"


def with_sandwich_of(run: pv.Run, evidence: pv.Evidence) -> pv.Evidence:
    """Adds the gaps that `sandwich` has left in the run's folder, where they are of these weights."""
    try:
        found = read_json(run.folder / SANDWICH)
        if not run.is_of(found):
            return evidence
        gaps = {name: float(gap) for name, gap in found["gaps"].items() if name in evidence}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):  # not there, or not of `sandwich`
        return evidence
    return evidence.with_sandwich(gaps) if gaps else evidence


def entry_of_run(run: pv.Run, evidence: pv.Evidence) -> Entry:
    """A row of the table."""
    seconds = None if run.seconds is None else run.seconds + float(evidence.attributes["seconds"])
    try:
        history = run.history
    except (OSError, ValueError):  # the table does not need it
        history = []
    train = run.config.get("train")
    seed = train.get("seed") if isinstance(train, dict) else None
    seed = seed if isinstance(seed, int) else None
    return Entry(str(run.folder), run.label, {seed: evidence}, seconds, {seed: history}, run.folder)
