"""Programs of `pv.compare` that are composed of parts: by the names of the command line, or by functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pyrovae.comparing import Pair
from pyrovae.data import Dataset
from pyrovae.models.composing.vae import start_at_mean, suited
from pyrovae.models.vae import VAE

from ..options.options import ModelOptions
from ..options.parts import (
    COMPONENTS,
    LATENT_DIM,
    NETWORKS,
    make_guide,
    make_likelihood,
    make_networks,
    make_prior,
)

Builder = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Composed:
    """A VAE of which some parts are built by functions, and the others named by options.

    Attributes:
        options: names and sizes of the parts that are named.
        prior: `f(data)` or `f(data, guide)`; None: the one that is named.
        guide: `f(data)`; None: the one that is named.
        likelihood: `f(data)`; None: the one that is named.
    """

    options: ModelOptions
    prior: Builder | None = None
    guide: Builder | None = None
    likelihood: Builder | None = None

    def build(self, data: Dataset, seed: int) -> Pair:
        """A new model and guide, their weights drawn under the seed, on the device of the data."""
        self.options.check()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            vae = self._vae(data).to(data.train.device)
        return vae.model, vae.guide

    def _vae(self, data: Dataset) -> VAE:
        options = self.options
        networks = make_networks(options, NETWORKS["mlp"])
        if self.guide is not None:
            q = _part(self.guide(data), "guide")
            width = int(getattr(q, "latent_dim", options.latent_dim or LATENT_DIM))
        else:
            width = options.latent_dim or LATENT_DIM
            make = make_guide(options)
            assert make is not None
            q = make(networks.encoder(data), width)
        if self.likelihood is not None:
            p_x = _part(self.likelihood(data), "likelihood")
        else:
            p_x = (make_likelihood(options, data) or suited)(
                lambda outputs: networks.decoder(data, width, outputs), data
            )
            start_at_mean(p_x, data)
        if self.prior is not None:
            p_z = _part(built_prior(self.prior, data, q), "prior")
        else:
            named = make_prior(options, data, COMPONENTS)
            assert named is not None
            p_z = named(q)
        return VAE(prior=p_z, likelihood=p_x, guide=q)


def built_prior(builder: Builder, data: Dataset, guide: nn.Module) -> Any:
    """The prior of `builder(data)`, or of `builder(data, guide)`, which has a parameter `guide` or two required."""
    try:
        parameters = inspect.signature(builder).parameters
    except (TypeError, ValueError):  # of a function without a signature
        return builder(data)
    if "guide" in parameters:
        return builder(data, guide=guide)
    needed = [p for p in parameters.values() if p.default is p.empty and p.kind <= p.POSITIONAL_OR_KEYWORD]
    return builder(data, guide) if len(needed) == 2 else builder(data)


def _part(part: Any, kind: str) -> nn.Module:
    if not isinstance(part, nn.Module):
        raise TypeError(
            f"expected a {kind} to be a module whose call returns a distribution, got {type(part).__name__}; try a "
            f"class of pyrovae.{kind}s"
        )
    return part
