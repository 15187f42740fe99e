"""Training by SVI: one loop with explicit state, and schedules."""

from .fit import Fit as Fit
from .fit import fit as fit
from .metrics import Metrics as Metrics
from .metrics import measure as measure
from .schedules import Constant as Constant
from .schedules import Cyclical as Cyclical
from .schedules import Exponential as Exponential
from .schedules import Warmup as Warmup
from .trainer import Trainer as Trainer
