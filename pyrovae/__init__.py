"""Deep latent-variable models in Pyro, with evidence you can trust."""

# First: what follows imports torch, which takes seconds in which Ctrl-C may come.
from . import starting as starting

# isort: split
from . import data as data
from . import guides as guides
from . import likelihoods as likelihoods
from . import networks as networks
from . import objectives as objectives
from . import priors as priors
from .divergences import Divergence as Divergence
from .divergences import ElboSurgery as ElboSurgery
from .divergences import elbo_surgery as elbo_surgery
from .divergences import js as js
from .divergences import kl as kl
from .evidence import AIS as AIS
from .evidence import ELBO as ELBO
from .evidence import IS as IS
from .evidence import MLMC as MLMC
from .evidence import Chunk as Chunk
from .evidence import ClosedELBO as ClosedELBO
from .evidence import Evidence as Evidence
from .evidence import Exact as Exact
from .evidence import ForwardKL as ForwardKL
from .evidence import FreeEnergy as FreeEnergy
from .evidence import Gaps as Gaps
from .evidence import Jackknife as Jackknife
from .evidence import LocalFit as LocalFit
from .evidence import LogPartition as LogPartition
from .evidence import Normalised as Normalised
from .evidence import RateDistortion as RateDistortion
from .evidence import Sandwich as Sandwich
from .evidence import TemperedLikelihood as TemperedLikelihood
from .evidence import WorkDistributions as WorkDistributions
from .evidence import bennett_acceptance_ratio as bennett_acceptance_ratio
from .evidence import crooks_fit as crooks_fit
from .evidence import evidence as evidence
from .evidence import forward_kl as forward_kl
from .evidence import free_energy as free_energy
from .evidence import gaps as gaps
from .evidence import log_partition as log_partition
from .evidence import log_weights as log_weights
from .evidence import merge_evidence as merge_evidence
from .evidence import posterior as posterior
from .evidence import rate_distortion as rate_distortion
from .evidence import sandwich as sandwich
from .evidence import spaced_betas as spaced_betas
from .evidence import tempered_likelihood as tempered_likelihood
from .evidence import work_distributions as work_distributions
from .precision import tf32 as tf32
from .programs import ParameterStore as ParameterStore
from .programs import per_datum as per_datum
from .programs import program as program
from .programs import shared as shared
from .runs import Run as Run
from .runs import load as load
from .runs import save as save
from .svi import SVI as SVI
from .training import Constant as Constant
from .training import Cosine as Cosine
from .training import Cyclical as Cyclical
from .training import Exponential as Exponential
from .training import Fit as Fit
from .training import IWAEStages as IWAEStages
from .training import Trainer as Trainer
from .training import Warmup as Warmup
from .training import fit as fit

__version__ = "0.1.0"
