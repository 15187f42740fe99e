"""Lines below the table of an evaluation: accuracy of a classifier, evidence a step, terms of a table's columns."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

import pyrovae as pv
from pyrovae.data.given.conditioned import LENGTHS
from pyrovae.evidence import ColumnTerms
from pyrovae.evidence.core.tables import render
from pyrovae.runs.scores import terms_of

from ...running.evaluating import some
from .semi_supervised import words_of_accuracy

LEAST = 5  # rows that are shown
STYLES = ("terminal", "markdown")


def given_lines(
    run: pv.Run, rows: tuple[Tensor, ...], split: str, limit: int | None, ev: pv.Evidence
) -> list[dict[str, str]]:
    """Lines on what a run is given, and on the columns of a table of several kinds; empty for other runs.

    Each is there by styles: "terminal" and "markdown".
    """
    labels = None if run.data.labels is None else some((run.data.labels[split],), limit)[0]
    lines: list[str | dict[str, str]] = [words_of_accuracy(run, rows, labels)]
    if LENGTHS in run.spec.given:
        lines.append(per_step(ev, rows[1]))
    elif run.spec.given and not lines[0]:
        lines.append(f"evidence is ln p(x | {', '.join(run.spec.given)})")
    terms = terms_of(run, *rows)
    if terms is not None:
        lines.append({style: terms.table(style=style) for style in STYLES})
    if run.spec.columns is not None:
        number = some((torch.arange(run.spec.splits[split]),), limit)[0].tolist()
        names = run.data.row_names(split)
        shown = [names[i] for i in number]
        lines.append({style: least_likely(ev, shown, terms, style=style) for style in STYLES})
    return [dict.fromkeys(STYLES, line) if isinstance(line, str) else line for line in lines if line]


def least_likely(
    ev: pv.Evidence,
    names: Sequence[str],
    terms: ColumnTerms | None,
    most: int = LEAST,
    style: str = "terminal",
) -> str:
    """A table of the rows of least ln p, by their names.

    With `terms`, the column whose E_q ln p(x_d|z) lies furthest below its mean over the data, and by how much, of those
    that the row has.
    """
    e = ev.best
    order = e.per_datum.nan_to_num(-math.inf).argsort(stable=True)[:most].tolist()
    head = ["row", "ln p [nats]", "± MC", "ESS"]
    cells = []
    for i in order:
        ess = "–" if e.ess is None else f"{float(e.ess[i]):.0f}"
        error = float(e.variance[i].sqrt())  # NaN of a single draw
        shown = "–" if math.isnan(error) else f"{error:.3f}"
        cells.append([names[i], f"{float(e.per_datum[i]):.3f}", shown, ess])
    if terms is not None:
        # The term of a missing value is 0, which may be far below what others have: a density's is not of one sign.
        held = terms.reconstruction.where(~ev.x.isnan().cpu(), math.nan)
        below = held - held.nanmean(0)
        head += ["column", "below its mean by [nats]"]
        for row, i in zip(cells, order, strict=True):
            d = int(below[i].nan_to_num(math.inf).argmin())
            known = not below[i, d].isnan()
            row += [terms.columns[d], f"{-float(below[i, d]):.3f}"] if known else ["–", "–"]
    return render(style, head, cells, f"rows of least ln p ({e.name} {e.symbol})", [])


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
