"""Evidence and posterior draws in ArviZ's containers."""

from .containers import evidence_to_arviz as evidence_to_arviz
from .posterior import posterior_to_arviz as posterior_to_arviz
