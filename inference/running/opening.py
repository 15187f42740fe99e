"""`pv.load`: run folders are opened with the builder of the programs that their options name."""

from pyrovae.runs import load as load

from ..options import building as building  # registers the builder
