"""Arguments of public functions, checked by their names: one table for all of them."""

from .arrays import as_tensor as as_tensor
from .arrays import as_tensors as as_tensors
from .checked import checked as checked
from .kinds import KINDS as KINDS
