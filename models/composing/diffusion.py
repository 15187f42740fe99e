"""A diffusion process composed for a data set."""

from __future__ import annotations

import math

from torch import nn

from pyrovae.data import Dataset

from ..diffusing.denoisers import MLPDenoiser
from ..diffusing.diffusion_process import Process
from ..diffusing.emissions import Continuous, GreyLevels
from ..diffusing.noise_schedules import FIRST, LAST, LearnedSchedule


def compose_process(
    data: Dataset,
    denoiser: nn.Module | None = None,
    schedule: nn.Module | None = None,
    *,
    levels: int | None = None,
) -> Process:
    """A process for `data`: bits, grey levels or real values.

    Args:
        data: what it will be trained on.
        denoiser: default: `MLPDenoiser` with the features that suit the levels.
        schedule: default: `LearnedSchedule` from the gamma_0 that suits the levels.
        levels: of grey data, where they are to be checked.

    Raises:
        ValueError: another number of levels than the data have, or data that are counts or in the unit interval.
    """
    emission, found = emission_of(data)
    if levels is not None and levels != found:
        raise ValueError(f"expected the {found} levels of {data.spec.name}, got {levels}")
    event = tuple(data.spec.event_shape)
    return Process(
        event,
        schedule or LearnedSchedule(first_gamma(found), LAST),
        denoiser or MLPDenoiser(math.prod(event), frequencies=frequencies_for(found)),
        emission,
    )


def emission_of(data: Dataset) -> tuple[nn.Module, int | None]:
    """The emission that suits the support, and the number of levels."""
    support = data.spec.support
    if support == "binary":
        return GreyLevels(2), 2
    if support == "levels":
        assert data.spec.levels is not None
        return GreyLevels(data.spec.levels), data.spec.levels
    if support == "real":
        return Continuous(), None
    hint = (
        "a vae (--model vae)" if support == "nonnegative_integer" else "load(..., binarise=...) (--binarise)"
    )
    raise ValueError(f"expected binary, grey-level or real data for a diffusion, got {support}; try {hint}")


def first_gamma(levels: int | None) -> float:
    """gamma_0 for so many levels: -3.6 for 2, -7.9 for 17, -13.3 for 256, and in between by the spacing."""
    if levels is None:
        return FIRST[17]
    # -2 ln(distance of levels) moves gamma_0 as it keeps the overlap of neighbours; pinned at the known ones.
    return FIRST.get(levels, FIRST[17] - 2 * math.log((levels - 1) / 16))


def frequencies_for(levels: int | None) -> tuple[int, ...]:
    """Exponents of the two highest features: about one period in two to four levels; none for bits and real data."""
    if levels is None or levels <= 2:
        return ()
    top = max(1, round(math.log2(levels - 1)) - 1)
    return (top - 1, top)
