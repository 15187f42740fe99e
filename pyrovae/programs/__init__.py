"""The only room that touches Pyro's traces: everything else asks it for numbers."""

from .arguments.marks import Marked as Marked
from .arguments.marks import per_datum as per_datum
from .arguments.marks import shared as shared
from .arguments.marks import tensors_in as tensors_in
from .checks.agreement import check_latents as check_latents
from .checks.contract import check_arguments as check_arguments
from .checks.measure import LABELS as LABELS
from .checks.measure import ON_GRAIN as ON_GRAIN
from .checks.measure import Measure as Measure
from .checks.measure import check_alike as check_alike
from .checks.measure import grain as grain
from .checks.measure import grain_of as grain_of
from .checks.measure import measure_notes as measure_notes
from .checks.support import check_kind as check_kind
from .checks.support import check_support as check_support
from .compile.cache_folder import ensure_compile_cache as ensure_compile_cache
from .declaration import Declaration as Declaration
from .declaration import declaration_of as declaration_of
from .declaration import program as program
from .generate.generated import Generated as Generated
from .generate.guide_means import guide_means as guide_means
from .generate.latent_space import Codes as Codes
from .generate.latent_space import LatentSpace as LatentSpace
from .generate.latent_space import latent_space as latent_space
from .generate.predictive import aggregate_posterior as aggregate_posterior
from .generate.predictive import decode as decode
from .generate.reconstruct import reconstruct as reconstruct
from .generate.simulate import simulate as simulate
from .handlers.annealed import AnnealedFamily as AnnealedFamily
from .handlers.annealed import annealed_family as annealed_family
from .handlers.substitute import Substitute as Substitute
from .inspection import Program as Program
from .inspection import drawn_outside as drawn_outside
from .latents import gaussian_kl as gaussian_kl  # registers its KLs: whoever asks for one has this room
from .latents import mended_draws as mended_draws  # of laws that draw from another density
from .looking import inspect_program as inspect_program
from .modes import buffers_of as buffers_of
from .modes import module_mode as module_mode
from .parameters import ParameterStore as ParameterStore
from .parameters import capture_parameters as capture_parameters
from .parameters import store_of as store_of
from .plates import Arguments as Arguments
from .seeds import derive_seed as derive_seed
from .seeds import reseeding as reseeding
from .seeds import seeded as seeded
from .sites import Sites as Sites
