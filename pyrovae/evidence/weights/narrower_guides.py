"""Reduction of an estimate to a lower bound, where the guide does not reach all that the prior allows."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ...programs import Program
from ..core.estimator import PerDatum


def narrower_note(narrower: Sequence[str]) -> str:
    """The latents whose guide has a smaller support than the prior, what follows, and the remedy."""
    return (
        f"the guide's support is smaller than the prior's at {'; '.join(narrower)}: E_q[w] < p(x), and what is "
        "made of its draws only bounds ln p(x) from below, without an interval; try a guide with the prior's support, "
        'or pv.AIS(start="prior") (command line: --estimators ais --start prior)'
    )


def warn_narrower(program: Program) -> None:
    """Warns of such latents, for results that have no warnings of their own."""
    if program.narrower:
        warnings.warn(narrower_note(program.narrower), stacklevel=3)


def within_reach(e: Any, result: PerDatum, narrower: Sequence[str]) -> PerDatum:
    """An estimator's result as what it is under such a guide.

    ln E_q[w] lies below ln p(x), by nobody knows how much. A lower bound stays one, its bias unknown. What estimates
    ln p(x) itself (jackknife, MLMC) estimates ln E_q[w] and is refused.
    """
    if not narrower or not getattr(e, "draws_from_guide", True):
        return result
    note = narrower_note(narrower)
    unknown = torch.full_like(result.bias, torch.nan)
    if e.direction == "<=":
        return replace(result, bias=unknown, details={**result.details, "lower_only": note})
    refused = {**result.details, "refused": note}
    return replace(result, log_evidence=unknown, variance=unknown, bias=unknown, details=refused)
