"""Demands of the figures on an evidence and on a history."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..results import EstimateLike, EvidenceLike, is_evidence


def estimate_of(ev: EvidenceLike, name: str, why: str) -> EstimateLike:
    """The named estimate.

    Raises:
        ValueError: where `ev` is no evidence, or has no such estimate.
    """
    if not is_evidence(ev):
        raise ValueError(f"expected an Evidence (of pv.evidence), got {type(ev).__name__}")
    if name not in ev.estimates:
        raise ValueError(
            f"expected an evidence with {name!r} for {why}, got {list(ev)}; try pv.evidence(..., "
            "estimators=[pv.ELBO(), pv.IS(1000)])"
        )
    return ev[name]


def weighed(ev: EvidenceLike) -> str | None:
    """Name of the estimator whose weights a figure is of: `Adaptive` or `OwnIS`, else IS, else any other with k-hat.

    Raises:
        ValueError: where `ev` is no evidence.
    """
    if not is_evidence(ev):
        raise ValueError(f"expected an Evidence (of pv.evidence), got {type(ev).__name__}")
    found = [name for name, e in ev.estimates.items() if e.khat is not None]
    return next((own for own in ("Adaptive", "OwnIS", "IS") if own in found), next(iter(found), None))


def single(ev: EvidenceLike) -> EstimateLike:
    """The estimate whose figures of single data are shown: IS, else that of `weighed`, else the last one.

    Raises:
        ValueError: where `ev` is no evidence, or has no estimate.
    """
    name = weighed(ev)
    if not ev.estimates:
        raise ValueError("expected an evidence with an estimate, got one whose estimators have all refused")
    return ev["IS" if "IS" in ev.estimates else name or list(ev.estimates)[-1]]


def quantity(estimate: EstimateLike) -> str:
    """Name of the quantity that is estimated: without a normaliser it is not ln p(x)."""
    return "ln f(x)" if estimate.direction == "none" else "ln p(x)"


def weighted_by(estimate: EstimateLike) -> str:
    """Name of the figures of single data, for a title."""
    relation = {"<=": "≤ ", ">=": "≥ "}.get(estimate.direction, "of ")
    draws = f", K = {estimate.num_samples:,}" if estimate.num_samples else ""
    return f"{estimate.name} estimate ({relation}{quantity(estimate)}{draws}) [nats]"


def epochs_of(history: Sequence[Mapping[str, float]], what: str = "history") -> list[float]:
    """Epoch of each row.

    Raises:
        ValueError: for an empty history, or rows without an epoch.
    """
    if isinstance(history, Mapping | str) or not all(isinstance(row, Mapping) for row in history):
        raise ValueError(f"expected {what} to be rows of Fit.history, got {type(history).__name__}")
    if not history:
        raise ValueError(f"expected {what} with at least one epoch, got none")
    lacking = [i for i, row in enumerate(history) if "epoch" not in row]
    if lacking:
        raise ValueError(f"expected 'epoch' in every row of {what}, got row {lacking[0]} without it")
    return [float(row["epoch"]) for row in history]


def column(history: Sequence[Mapping[str, float]], key: str) -> list[float]:
    """One figure over all rows; NaN where a row lacks it."""
    return [float(row.get(key, math.nan)) for row in history]


def present(values: Sequence[float]) -> bool:
    """Whether there is anything to draw."""
    return any(math.isfinite(v) for v in values)
