"""Training by SVI: one loop with explicit state, and schedules."""

from .bad_steps import BadStep as BadStep
from .checkpoint import Checkpoints as Checkpoints
from .fit import Fit as Fit
from .fit import fit as fit
from .levels import Level as Level
from .levels import level_report as level_report
from .levels import level_table as level_table
from .metrics import Metrics as Metrics
from .metrics import measure as measure
from .schedules import Constant as Constant
from .schedules import Cosine as Cosine
from .schedules import Cyclical as Cyclical
from .schedules import Exponential as Exponential
from .schedules import IWAEStages as IWAEStages
from .schedules import Warmup as Warmup
from .trainer import Trainer as Trainer
