"""Data held in memory, and what they are: shape, support, binarisation, hash, and their own law if known."""

from .dataset import Dataset as Dataset
from .given.conditioned import conditioned as conditioned
from .given.labelled import partly_labelled as partly_labelled
from .given.labelled import with_given as with_given
from .given.new_rows import NewRows as NewRows
from .given.new_rows import new_rows as new_rows
from .ising.kaufman import log_partition as log_partition
from .ising.observables import correlation as correlation
from .ising.observables import energy as energy
from .ising.observables import magnetisation as magnetisation
from .ising.torus import T_CRITICAL as T_CRITICAL
from .ising.torus import IsingTorus as IsingTorus
from .loading import NAMES as NAMES
from .loading import load as load
from .roots import data_root as data_root
from .spec import DataSpec as DataSpec
from .streaming import Stream as Stream

__all__ = [
    "NAMES",
    "T_CRITICAL",
    "DataSpec",
    "Dataset",
    "IsingTorus",
    "NewRows",
    "Stream",
    "conditioned",
    "correlation",
    "data_root",
    "energy",
    "load",
    "log_partition",
    "magnetisation",
    "new_rows",
    "partly_labelled",
    "with_given",
]
