"""Objectives: Pyro's own ELBOs, checked for validity, with beta and free bits outside of the model."""

from .beta import BetaELBO as BetaELBO
from .check import check_objective as check_objective
from .free_bits import FreeBits as FreeBits
from .terms import with_terms as with_terms
