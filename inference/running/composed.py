"""Programs of `pv.compare` that are composed of parts: by the names of the command line, or by functions."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pyrovae.comparing import Pair
from pyrovae.comparing.given import program_of
from pyrovae.comparing.table import GRID
from pyrovae.data import Dataset, prepared
from pyrovae.models.composing.tables import as_given
from pyrovae.models.composing.vae import start_at_mean, suited
from pyrovae.models.vae import VAE

from ..options.applying import refuse_unused
from ..options.building import kind_for
from ..options.options import ModelOptions, TrainOptions
from ..options.parts import (
    COMPONENTS,
    LATENT_DIM,
    NETWORKS,
    make_guide,
    make_likelihood,
    make_networks,
    make_prior,
)
from . import asked
from .grid import Named

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
        if data.context is not None:
            raise ValueError(
                f"expected parts by name for data with {', '.join(data.spec.given)} given, got functions, which build "
                "parts of p(x); try programs={'mine': a function of the data that builds model and guide}"
            )
        given, data = data, prepared(data)
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
        p_x, q = as_given(p_x, q, given)
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


def programs_of(
    programs: Any, priors: Any, guides: Any, likelihoods: Any, sizes: dict[str, Any], data: Dataset
) -> tuple[tuple[str, ...], list[tuple[tuple[str, ...], Any]]]:
    """Heads of the table, and programs with their labels: all combinations of parts, then whole programs.

    Args:
        programs: by name, or None.
        priors, guides, likelihoods: names or functions, or None.
        sizes: of the parts that have names.
        data: that they are for; where labels or columns are given, parts are those of p(x | c).

    Raises:
        TypeError, ValueError: nothing to compare, or sizes and names that do not fit.
    """
    grid = any(part is not None for part in (priors, guides, likelihoods))
    if programs is None and not grid:
        raise ValueError(
            "expected programs, or priors= and guides=, got none; try pv.compare({'mine': (model, guide)}, data)"
        )
    if sizes and not grid:
        raise TypeError(
            f"expected priors= or guides= beside {', '.join(sizes)}, which are sizes of their parts, got none"
        )
    if likelihoods is not None and "likelihood" in sizes:
        raise TypeError("expected likelihoods= or likelihood=, got both")
    found: list[tuple[tuple[str, ...], Any]] = []
    with_likelihood = likelihoods is not None
    if grid:
        kinds = {"priors": priors, "guides": guides, "likelihoods": likelihoods}
        default = {"priors": "standard", "guides": "diagonal", "likelihoods": sizes.get("likelihood", "auto")}
        parts = [asked.parts_of(default[k] if given is None else given, k) for k, given in kinds.items()]
        kind = "conditional" if kind_for(data) == "conditional" else "vae"
        for combination in itertools.product(*(p.items() for p in parts)):
            label = tuple(name for name, _ in combination)
            found.append((label if with_likelihood else label[:2], _composed(combination, sizes, kind)))
        refuse_unused([p.options for _, p in found], [TrainOptions()])
    width = len(found[0][0]) if found else 1
    for name, given in (asked.programs_of(programs) if programs is not None else {}).items():
        found.append(((name, *[""] * (width - 1)), program_of(name, given)))
    if not grid:
        return ("program", "objective"), found
    return (("prior", "guide", "likelihood", "objective") if with_likelihood else GRID), found


def _composed(combination: Any, sizes: dict[str, Any], kind: str) -> Named | Composed:
    """A VAE, or one of p(x | c), of one combination of parts, by name or by function."""
    builders = {kind: b for kind, (_, b) in zip(("prior", "guide", "likelihood"), combination, strict=True)}
    names = {
        kind: name
        for kind, (name, b) in zip(("prior", "guide", "likelihood"), combination, strict=True)
        if b is None
    }
    model = ModelOptions(**{**sizes, **names}, model=kind)
    model.check()
    if not any(builders.values()):
        return Named(model)
    if model.preset is not None:
        raise ValueError(
            f"expected parts by name with preset={model.preset!r}, which brings its own networks, got functions"
        )
    return Composed(model, **builders)
