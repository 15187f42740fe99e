"""Run folders: a trained program's configuration, weights and history on disk, without pickle."""

from .consent import NotTrusted as NotTrusted
from .consent import check_consent as check_consent
from .consent import record_code as record_code
from .data import load_again as load_again
from .folder import CHECKPOINTS as CHECKPOINTS
from .folder import CONFIG as CONFIG
from .folder import EVIDENCE as EVIDENCE
from .folder import FORMAT as FORMAT
from .folder import HISTORY as HISTORY
from .folder import UNFINISHED as UNFINISHED
from .folder import WEIGHTS as WEIGHTS
from .folder import create as create
from .folder import is_unfinished as is_unfinished
from .folder import read_config as read_config
from .folder import write_config as write_config
from .loading import load as load
from .run import Run as Run
from .saving import save as save
from .weights import load_weights as load_weights
from .weights import save_weights as save_weights
from .weights import weights_hash as weights_hash
