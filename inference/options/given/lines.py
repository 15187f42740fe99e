"""Lines below the table of an evaluation: accuracy of a classifier, evidence a step, terms of a table's columns."""

from __future__ import annotations

import math

from torch import Tensor

import pyrovae as pv
from pyrovae.data.given.conditioned import LENGTHS
from pyrovae.runs.scores import terms_of

from ...running.evaluating import some
from .semi_supervised import words_of_accuracy


def given_lines(
    run: pv.Run, rows: tuple[Tensor, ...], split: str, limit: int | None, ev: pv.Evidence
) -> list[str]:
    """Lines on what a run is given, and on the columns of a table of several kinds; empty for other runs."""
    labels = None if run.data.labels is None else some((run.data.labels[split],), limit)[0]
    lines = [words_of_accuracy(run, rows, labels)]
    if LENGTHS in run.spec.given:
        lines.append(per_step(ev, rows[1]))
    elif run.spec.given and not lines[0]:
        lines.append(f"evidence is ln p(x | {', '.join(run.spec.given)})")
    terms = terms_of(run, *rows)
    if terms is not None:
        lines.append(terms.table())
    return [line for line in lines if line]


def per_step(ev: pv.Evidence, lengths: Tensor) -> str:
    """Evidence a step: sum of ln p over sequences by the sum of their lengths, with its errors.

    The error over data is that of a ratio of means (Cochran 1977, Sampling Techniques, 6.4).
    """
    steps = lengths.double().cpu()
    parts = []
    for e in ev.estimates.values():
        total = float(e.per_datum.sum() / steps.sum())
        rest = e.per_datum - total * steps
        se = float(rest.std() / math.sqrt(len(steps)) / steps.mean()) if len(steps) > 1 else math.nan
        parts.append(f"{e.name} {e.symbol} {total:.4f} ± {se:.4f}")
    return (
        f"ln p a step, nats: {'; '.join(parts)} (sequences of {int(steps.min())} to {int(steps.max())} steps)"
    )
