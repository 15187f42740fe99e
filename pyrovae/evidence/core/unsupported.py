"""Refusal of an estimate of ln p(x) itself whose weights do not support it."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from .estimate import Estimate


def refuse_unsupported(e: Estimate) -> Estimate:
    """An estimate that is no bound (jackknife, MLMC), refused where its weights support no two-sided statement.

    A lower bound stays one under uneven weights. What claims to be ln p(x) itself then says nothing: `log_evidence` is
    NaN, `details["refused"]` says why and `details["refused_data"]` which data. `per_datum` stays, for `reliable` tells
    its data apart.
    """
    if e.direction != "~" or e.ess is None or "refused" in e.details or not e.unreliable_share:
        return e
    good = e.reliable
    why = (
        f"its weights support no two-sided statement for {some(~good)}, and it is no bound; try a better guide, more "
        "samples, or pv.IS, which is a lower bound"
    )
    if bool(good.any()):
        why += f"; the mean of the other {int(good.sum())} data is {float(e.per_datum[good].mean()):.4f}"
    return replace(e, details={**e.details, "refused": why, "refused_data": (~good).double()})


def some(rows: Tensor) -> str:
    """`3 of 40 data (4, 17, 30)`: the first few by number."""
    found = rows.nonzero()[:, 0].tolist()
    shown = ", ".join(map(str, found[:5])) + (", ..." if len(found) > 5 else "")
    return f"{len(found)} of {len(rows)} data ({shown})"
