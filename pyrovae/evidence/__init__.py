"""Estimates of ln p(x) for any Pyro program: one file an estimator, one result object."""

from .elbo import ELBO as ELBO
from .evidence import Evidence as Evidence
from .evidence import evidence as evidence
from .importance import IS as IS
from .log_weights import Chunk as Chunk
from .log_weights import log_weights as log_weights
from .result import Comparison as Comparison
from .result import Estimate as Estimate
