"""Evidence in other libraries' containers, and on disk."""

from .containers import evidence_to_arviz as evidence_to_arviz
from .netcdf import read_evidence as read_evidence
from .netcdf import write_netcdf as write_netcdf
from .posterior import posterior_to_arviz as posterior_to_arviz
