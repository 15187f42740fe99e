"""Free energies and the paths of densities between prior and posterior."""

from .free_energies import FreeEnergy as FreeEnergy
from .free_energy import free_energy as free_energy
from .rate_distortion import RateDistortion as RateDistortion
from .rate_distortion import rate_distortion as rate_distortion
from .tempered_likelihood import TemperedLikelihood as TemperedLikelihood
from .tempered_likelihood import tempered_likelihood as tempered_likelihood
