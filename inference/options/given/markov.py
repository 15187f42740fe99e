"""Building of a deep Markov model from option names."""

from __future__ import annotations

from pyrovae.data import Dataset
from pyrovae.models.composing.markov import compose_markov, single_steps
from pyrovae.models.markov import DeepMarkov

from ..options import ModelOptions
from ..parts import LATENT_DIM, make_likelihood

HIDDEN = 64


def build_markov(options: ModelOptions, data: Dataset) -> DeepMarkov:
    """The deep Markov model that the options name.

    Raises:
        ValueError: data without lengths, or several hidden layers.
    """
    hidden = options.hidden or (HIDDEN,)
    if len(hidden) > 1:
        raise ValueError(f"expected one --hidden width for a Markov model, got {hidden}")
    likelihood = None if options.likelihood == "auto" else make_likelihood(options, single_steps(data))
    return compose_markov(data, options.latent_dim or LATENT_DIM, hidden[0], likelihood=likelihood)
