"""From option names to a diffusion."""

from __future__ import annotations

import math

from torch import nn

from pyrovae.data import Dataset
from pyrovae.models.architectures import image_shape
from pyrovae.models.composing_diffusion import compose_process, emission_of, first_gamma, frequencies_for
from pyrovae.models.denoisers import MLPDenoiser, UNetDenoiser
from pyrovae.models.diffusion import DiffusionBound, DiffusionChain
from pyrovae.models.noise_schedules import LAST, LearnedSchedule, LinearSchedule

from .options import ModelOptions


def build_diffusion(options: ModelOptions, data: Dataset) -> DiffusionChain | DiffusionBound:
    """The diffusion that the options name.

    Raises:
        ValueError: options of the vae alone, widths that differ, images that cannot be halved.
    """
    for name in ("guide", "prior", "latent_dim", "activation"):
        if getattr(options, name) is not None:
            raise ValueError(
                f"expected no --{name.replace('_', '-')} for a diffusion, which has none of its own, "
                f"got {getattr(options, name)}"
            )
    if options.likelihood != "auto":
        raise ValueError(f"expected --likelihood auto for a diffusion, got {options.likelihood}")
    _, levels = emission_of(data)
    make = LearnedSchedule if options.noise_schedule == "learned" else LinearSchedule
    process = compose_process(data, _denoiser(options, data, levels), make(first_gamma(levels), LAST))
    if options.diffusion_steps is not None:
        return DiffusionChain(process, options.diffusion_steps)
    return DiffusionBound(process)


def _denoiser(options: ModelOptions, data: Dataset, levels: int | None) -> nn.Module:
    frequencies = frequencies_for(levels) if options.frequencies is None else options.frequencies
    if options.network == "conv":
        return UNetDenoiser(image_shape(data), options.channels or (32, 64), frequencies)
    if options.network not in (None, "mlp"):
        raise ValueError(f"expected --network mlp or conv for a diffusion, got {options.network}")
    widths = options.hidden or (256, 256, 256)
    if len(set(widths)) > 1:
        raise ValueError(f"expected one --hidden width, repeated for each residual block, got {widths}")
    return MLPDenoiser(math.prod(data.spec.event_shape), widths[0], len(widths), frequencies)
