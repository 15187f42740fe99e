"""Figures from tensors and results: functions draw into Axes and never touch pyplot's global state."""

from .elbo_vs_is import plot_elbo_vs_is as plot_elbo_vs_is
from .evidence import plot_evidence as plot_evidence
from .histories import plot_histories as plot_histories
from .images import plot_images as plot_images
from .images import plot_reconstructions as plot_reconstructions
from .images import plot_samples as plot_samples
from .khat import plot_khat as plot_khat
from .latent import plot_latent as plot_latent
from .lk_curve import plot_lk_curve as plot_lk_curve
from .saving import save as save
from .training import plot_training as plot_training
