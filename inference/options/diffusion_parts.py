"""Building of a diffusion from option names."""

from __future__ import annotations

import math

from torch import nn

from pyrovae.data import Dataset
from pyrovae.models.composing.architectures import image_shape
from pyrovae.models.composing.diffusion import compose_process, emission_of, first_gamma, frequencies_for
from pyrovae.models.diffusing.denoisers import MLPDenoiser, UNetDenoiser
from pyrovae.models.diffusing.level_denoiser import LevelDenoiser, log_marginals
from pyrovae.models.diffusing.level_networks import LevelMLP, LevelUNet
from pyrovae.models.diffusing.noise_schedules import LAST, LearnedSchedule, LinearSchedule
from pyrovae.models.diffusion import DiffusionBound, DiffusionChain

from .applying import refuse_parts
from .options import ModelOptions

MOST_LEVELS = 32  # the network has an output for each level of each element


def build_diffusion(options: ModelOptions, data: Dataset) -> DiffusionChain | DiffusionBound:
    """The diffusion that the options name.

    Raises:
        ValueError: options of the vae alone, widths that differ, images that cannot be halved.
    """
    refuse_parts(options, ("guide", "prior", "latent_dim", "activation"), "a diffusion")
    _, levels = emission_of(data)
    make = LearnedSchedule if options.noise_schedule == "learned" else LinearSchedule
    process = compose_process(data, _denoiser(options, data, levels), make(first_gamma(levels), LAST))
    if options.diffusion_steps is not None:
        return DiffusionChain(process, options.diffusion_steps)
    return DiffusionBound(process)


def _denoiser(options: ModelOptions, data: Dataset, levels: int | None) -> nn.Module:
    if options.denoiser == "levels":
        return _of_levels(options, data, levels)
    if options.dropout:
        raise ValueError(f"expected --denoiser levels with --dropout {options.dropout}, got noise")
    frequencies = frequencies_for(levels) if options.frequencies is None else options.frequencies
    if options.network == "conv":
        return UNetDenoiser(image_shape(data), options.channels or (32, 64), frequencies)
    _only_perceptrons(options)
    return MLPDenoiser(math.prod(data.spec.event_shape), *_residual(options), frequencies)


def _of_levels(options: ModelOptions, data: Dataset, levels: int | None) -> nn.Module:
    if levels is None or levels > MOST_LEVELS:
        raise ValueError(
            f"expected data of at most {MOST_LEVELS} levels for --denoiser levels, got "
            f"{'real data' if levels is None else levels}; try --denoiser noise"
        )
    net: nn.Module
    if options.network == "conv":
        net = LevelUNet(image_shape(data), levels, options.channels or (32, 64))
    else:
        _only_perceptrons(options)
        net = LevelMLP(math.prod(data.spec.event_shape), levels, *_residual(options))
    return LevelDenoiser(log_marginals(data.train.flatten(1), levels), net, options.dropout)


def _only_perceptrons(options: ModelOptions) -> None:
    if options.network not in (None, "mlp"):
        raise ValueError(f"expected --network mlp or conv for a diffusion, got {options.network}")


def _residual(options: ModelOptions) -> tuple[int, int]:
    """Width and number of residual blocks."""
    widths = options.hidden or (256, 256, 256)
    if len(set(widths)) > 1:
        raise ValueError(f"expected one --hidden width, repeated for each residual block, got {widths}")
    return widths[0], len(widths)
