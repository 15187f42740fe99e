"""The only room that touches Pyro's traces: everything else asks it for numbers."""

from .declaration import Declaration as Declaration
from .declaration import declaration_of as declaration_of
from .declaration import program as program
from .inspection import Program as Program
from .inspection import inspect_program as inspect_program
from .latent_space import Codes as Codes
from .latent_space import LatentSpace as LatentSpace
from .latent_space import latent_space as latent_space
from .modules import buffers_of as buffers_of
from .modules import module_mode as module_mode
from .parameters import ParameterStore as ParameterStore
from .parameters import capture_parameters as capture_parameters
from .parameters import store_of as store_of
from .plates import Arguments as Arguments
from .predictive import Generated as Generated
from .predictive import aggregate_posterior as aggregate_posterior
from .predictive import decode as decode
from .predictive import reconstruct as reconstruct
from .predictive import simulate as simulate
from .seeds import derive_seed as derive_seed
from .seeds import reseeding as reseeding
from .seeds import seeded as seeded
from .sites import Sites as Sites
from .structure import check_arguments as check_arguments
from .structure import check_support as check_support
from .substitute import Substitute as Substitute
