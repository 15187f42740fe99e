"""Laws of rows of a table: each number by itself given the parameters, in its own units, some of them missing."""

from .joined import Joined as Joined
from .partially_observed import PartiallyObserved as PartiallyObserved
from .standardized import Standardized as Standardized
