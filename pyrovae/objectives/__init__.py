"""Objectives: Pyro's ELBOs, checked for validity, and those made of weights; beta and free bits outside of models."""

from .beta import BetaELBO as BetaELBO
from .check import check_objective as check_objective
from .dreg import DReG as DReG
from .free_bits import FreeBits as FreeBits
from .iwae import IWAE as IWAE
from .renyi import Renyi as Renyi
from .stl import STL as STL
from .terms import with_terms as with_terms
