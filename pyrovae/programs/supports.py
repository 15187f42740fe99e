"""From unconstrained numbers to a site's support."""

from __future__ import annotations

from typing import Any

from torch.distributions import biject_to
from torch.distributions.mixture_same_family import MixtureSameFamilyConstraint


def bijection(support: Any) -> Any:
    """`biject_to(support)`, of mixtures too: torch has no bijection registered for theirs."""
    if isinstance(support, MixtureSameFamilyConstraint):
        support = support.base_constraint
    return biject_to(support)
