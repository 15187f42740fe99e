"""Data held in memory, and what they are: shape, support, binarisation, hash, and their own law if known."""

from .dataset import Dataset as Dataset
from .given.conditioned import conditioned as conditioned
from .given.labelled import partly_labelled as partly_labelled
from .given.labelled import with_given as with_given
from .given.new_rows import NewRows as NewRows
from .given.new_rows import new_rows as new_rows
from .given.own import with_context as with_context
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
from .tables.columns import Column as Column
from .tables.imputed import imputed_frames as imputed_frames
from .tables.preparing import fill_of as fill_of
from .tables.preparing import prepared as prepared
from .tables.reading import described as described
from .tables.rows import as_frame as as_frame
from .tables.rows import only as only
from .tables.rows import rows_like as rows_like
from .tables.standardization import Standardization as Standardization

__all__ = [
    "NAMES",
    "T_CRITICAL",
    "Column",
    "DataSpec",
    "Dataset",
    "IsingTorus",
    "NewRows",
    "Standardization",
    "Stream",
    "as_frame",
    "conditioned",
    "correlation",
    "data_root",
    "described",
    "energy",
    "fill_of",
    "imputed_frames",
    "load",
    "log_partition",
    "magnetisation",
    "new_rows",
    "only",
    "partly_labelled",
    "prepared",
    "rows_like",
    "with_context",
    "with_given",
]
