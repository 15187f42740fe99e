"""Supports, moments and names of laws of single numbers, which rows are made of."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

__all__ = ["Restricted", "moments_of", "name_of_law", "parts_of"]


class Restricted(constraints.Constraint):
    """Values `x` of which `change(x)` lies in another constraint.

    Args:
        base: the other constraint, on events.
        change: of the value.
        parts: constraints of single numbers: what the measure is known by.
    """

    def __init__(self, base: Any, change: Any, parts: list[Any]) -> None:
        self._base, self._change, self.cseq = base, change, parts
        super().__init__()

    def __repr__(self) -> str:
        return f"Restricted({', '.join(dict.fromkeys(map(repr, self.cseq)))})"

    @property
    def is_discrete(self) -> bool:  # type: ignore[override]
        """Whether all numbers are."""
        return all(c.is_discrete for c in self.cseq)

    @property
    def event_dim(self) -> int:  # type: ignore[override]
        """Dims of an event."""
        return int(self._base.event_dim)

    def check(self, value: Tensor) -> Tensor:
        """Whether each event lies within."""
        found: Tensor = self._base.check(self._change(value))
        return found


def parts_of(support: Any) -> list[Any]:
    """Constraints of single numbers that a constraint on events is made of."""
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    parts = getattr(support, "cseq", None)
    return [p for part in parts for p in parts_of(part)] if parts else [support]


def moments_of(law: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance of each number, and whether its law is normal (of others the variance is left at 0)."""
    own = getattr(law, "moments", None)
    if own is not None:
        found: tuple[Tensor, Tensor, Tensor] = own()
        return found
    inner = law
    while hasattr(inner, "base_dist"):
        inner = inner.base_dist
    normal = isinstance(inner, dist.Normal)
    mean: Tensor = law.mean
    variance: Tensor = law.variance if normal else torch.zeros_like(mean)
    return mean, variance, torch.full(mean.shape, normal, device=mean.device)


def name_of_law(law: Any) -> str:
    """Name of the law of single numbers inside, for messages."""
    while not hasattr(law, "law_name") and hasattr(law, "base_dist"):
        law = law.base_dist
    return str(getattr(law, "law_name", type(law).__name__))
