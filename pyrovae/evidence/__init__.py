"""Estimates of ln p(x) for any Pyro program: one file an estimator, one result object."""

from .ais import AIS as AIS
from .bracket import Sandwich as Sandwich
from .elbo import ELBO as ELBO
from .evidence import Evidence as Evidence
from .evidence import evidence as evidence
from .exact import Exact as Exact
from .forward_kl import ForwardKL as ForwardKL
from .forward_kl import forward_kl as forward_kl
from .gap_parts import Gaps as Gaps
from .gaps import gaps as gaps
from .importance import IS as IS
from .jackknife import Jackknife as Jackknife
from .local import LocalFit as LocalFit
from .log_weights import Chunk as Chunk
from .log_weights import log_weights as log_weights
from .merging import merge_evidence as merge_evidence
from .mlmc import MLMC as MLMC
from .posterior import PosteriorDraws as PosteriorDraws
from .posterior import posterior as posterior
from .result import Comparison as Comparison
from .result import Estimate as Estimate
from .sandwich import sandwich as sandwich
from .thermodynamics import RateDistortion as RateDistortion
from .thermodynamics import rate_distortion as rate_distortion
