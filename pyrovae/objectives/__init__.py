"""Objectives: Pyro's ELBOs, checked for validity; those of weights and of two phases; beta and free bits outside."""

from .beta import BetaELBO as BetaELBO
from .check import check_objective as check_objective
from .classified import Classified as Classified
from .contrastive import ContrastiveDivergence as ContrastiveDivergence
from .contrastive import PersistentCD as PersistentCD
from .dreg import DReG as DReG
from .free_bits import FreeBits as FreeBits
from .iwae import IWAE as IWAE
from .nesting import with_nesting as with_nesting
from .phases import PhaseObjective as PhaseObjective
from .renyi import Renyi as Renyi
from .stl import STL as STL
from .tempering import ParallelTempering as ParallelTempering
from .terms import with_terms as with_terms
