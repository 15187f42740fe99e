"""Training by SVI: one loop with explicit state, and schedules."""

from .bad_steps import BadStep as BadStep
from .fit import fit as fit
from .into_folder import train_into as train_into
from .logging.levels import Level as Level
from .logging.levels import level_report as level_report
from .logging.levels import level_table as level_table
from .logging.metrics import Metrics as Metrics
from .logging.metrics import measure as measure
from .logging.scalars import mlflow_writer as mlflow_writer
from .logging.scalars import tensorboard_writer as tensorboard_writer
from .logging.scalars import wandb_writer as wandb_writer
from .result import Fit as Fit
from .schedules import Constant as Constant
from .schedules import Cosine as Cosine
from .schedules import Cyclical as Cyclical
from .schedules import Exponential as Exponential
from .schedules import IWAEStages as IWAEStages
from .schedules import Warmup as Warmup
from .state.checkpoint import Checkpoints as Checkpoints
from .trainer import Trainer as Trainer
