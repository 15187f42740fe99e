"""Building of a conditional VAE from option names."""

from __future__ import annotations

from pyrovae.data import Dataset
from pyrovae.models.composing.conditional import compose_conditional
from pyrovae.models.conditional import ConditionalVAE

from ..options import ModelOptions
from ..parts import COMPONENTS, LATENT_DIM, NETWORKS, make_guide, make_likelihood, make_networks, make_prior


def build_conditional(options: ModelOptions, data: Dataset) -> ConditionalVAE:
    """The conditional VAE that the options name; without --prior its prior is p(z|c).

    Raises:
        ValueError: data without a context, or a VampPrior, whose pseudo-inputs have none.
    """
    if options.prior == "vamp":
        raise ValueError(
            "expected another --prior for a conditional model than vamp, whose pseudo-inputs have nothing given; try "
            "mixture, or none, which is p(z|c)"
        )
    return compose_conditional(
        data,
        make_networks(options, NETWORKS["mlp"]),
        options.latent_dim or LATENT_DIM,
        prior=make_prior(options, data, COMPONENTS),
        guide=make_guide(options),
        likelihood=make_likelihood(options, data),
    )
