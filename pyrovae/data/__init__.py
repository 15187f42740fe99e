"""Data held in memory, and what they are: shape, support, binarisation, hash, and their own law if known."""

from .dataset import Dataset as Dataset
from .loading import NAMES as NAMES
from .loading import load as load
from .roots import data_root as data_root
from .spec import DataSpec as DataSpec

__all__ = ["NAMES", "DataSpec", "Dataset", "data_root", "load"]
