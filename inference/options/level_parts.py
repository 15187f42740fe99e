"""Building of a hierarchical model from option names."""

from __future__ import annotations

from pyrovae.data import Dataset
from pyrovae.models.composing.levels import compose_hierarchical, residual
from pyrovae.models.hierarchical import HierarchicalVAE

from .options import ModelOptions
from .parts import COMPONENTS, NETWORKS, make_likelihood, make_networks, make_prior

LEVELS, WIDEST, NARROWEST = 3, 64, 8


def build_hierarchical(options: ModelOptions, data: Dataset) -> HierarchicalVAE:
    """The hierarchical VAE that the options name.

    Raises:
        ValueError: widths that do not match the levels, or options of the vae alone.
    """
    if options.guide not in (None, "bottom-up", "top-down"):
        raise ValueError(
            f"expected --guide top-down or bottom-up for a hierarchical model, got {options.guide}"
        )
    if options.latent_dim is not None:
        raise ValueError(
            "expected no --latent-dim for a hierarchical model; try --widths, one for each level"
        )
    levels = LEVELS if options.levels is None else options.levels
    widths = options.widths or tuple(max(NARROWEST, WIDEST >> t) for t in range(levels))
    return compose_hierarchical(
        data,
        make_networks(options, NETWORKS["mlp"]),
        widths,
        top_down=options.guide != "bottom-up",
        stream=options.stream,
        between=residual(options.level_width, options.level_blocks),
        prior=make_prior(options, data, COMPONENTS),
        likelihood=make_likelihood(options, data),
    )
