"""Tables of parts: each maps an option name to what makes the part."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import pyrovae as pv
from pyrovae.data import Dataset, prepared
from pyrovae.models.composing.architectures import Convolutional, Gated, Networks, Perceptrons
from pyrovae.models.composing.presets import PRESETS
from pyrovae.models.composing.vae import MakeGuide, MakeLikelihood, MakePrior, compose, vamp
from pyrovae.models.vae import VAE

from .options import ModelOptions

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "leaky-relu": nn.LeakyReLU,
    "softplus": nn.Softplus,
}
NETWORKS: dict[str, Networks] = {
    "mlp": Perceptrons(),
    "gated": Gated((128, 128)),
    "conv": Convolutional(),
    "residual": Convolutional(residual=True),
}
LATENT_DIM, COMPONENTS, FLOW_HIDDEN = 8, 20, (32,)


def build_vae(options: ModelOptions, data: Dataset) -> VAE:
    """The VAE that the options name: the preset's, or the default one, with the parts and sizes given."""
    default = functools.partial(compose, architecture=NETWORKS["mlp"], latent_dim=LATENT_DIM)
    make = PRESETS[options.preset] if options.preset else default
    sizes = inspect.signature(make).parameters
    given: dict[str, Any] = {
        "latent_dim": options.latent_dim,
        "prior": make_prior(options, data, _default(sizes, "components", COMPONENTS)),
        "guide": make_guide(options),
        "likelihood": make_likelihood(options, data),
    }
    name = "networks" if options.preset else "architecture"
    given[name] = make_networks(options, sizes[name].default)
    return make(data, **{k: v for k, v in given.items() if v is not None})


def _default(parameters: Any, name: str, otherwise: Any) -> Any:
    return parameters[name].default if name in parameters else otherwise


def make_networks(options: ModelOptions, start: Networks) -> Networks:
    """The architecture: `start`, or the one named, with the widths given.

    Raises:
        ValueError: an option that this architecture does not have.
    """
    found = start if options.network is None else NETWORKS[options.network]
    fields = {f.name for f in dataclasses.fields(found)}
    if (
        options.network is not None
        and options.hidden is None
        and hasattr(start, "hidden")
        and "hidden" in fields
    ):
        found = dataclasses.replace(found, hidden=start.hidden)
    change: dict[str, Any] = {"channels": options.channels, "hidden": options.hidden}
    if options.activation is not None:
        change["activation"] = ACTIVATIONS[options.activation]
    change = {k: v for k, v in change.items() if v is not None}
    if isinstance(found, Convolutional):
        if "channels" in change:
            change["decoder_channels"] = None
        if "hidden" in change:
            if len(change["hidden"]) != 1:
                raise ValueError(
                    f"expected one --hidden width, the dense layer after the convolutions, got {change['hidden']}; "
                    "try --channels for theirs"
                )
            change["features"] = change.pop("hidden")[0]
    for name in change:
        if name not in fields:
            kind = {Perceptrons: "mlp", Gated: "gated"}.get(type(found), type(found).__name__)
            raise ValueError(
                f"expected no --{name} for {kind} networks, which have none; try another --network"
            )
    return dataclasses.replace(found, **change)


def make_prior(options: ModelOptions, data: Dataset, components: int) -> MakePrior | None:
    """A function `guide -> prior`; None for the preset's own."""
    name = options.prior
    number = options.components if options.components is not None else components
    if name is None:
        # The preset with pseudo-inputs of its own has them in the number given.
        own = options.preset == "vampprior" and options.components is not None
        return vamp(data, number) if own else None
    flow: dict[str, Any] = {"hidden": options.flow_hidden or FLOW_HIDDEN}
    if options.flow_transforms is not None:
        flow["transforms"] = options.flow_transforms
    if name == "vamp":
        return vamp(data, number)
    priors: dict[str, Callable[[int], nn.Module]] = {
        "standard": pv.priors.StandardNormal,
        "diagonal": pv.priors.DiagonalGaussian,
        "mixture": functools.partial(pv.priors.GaussianMixture, num_components=number),
        "flow-spline": functools.partial(pv.priors.FlowPrior.spline, **flow),
        "flow-maf": functools.partial(pv.priors.FlowPrior.maf, **flow),
        "flow-coupling": functools.partial(pv.priors.FlowPrior.coupling, **flow),
    }
    return lambda guide: priors[name](int(guide.latent_dim))  # type: ignore[arg-type]  # a number


def make_guide(options: ModelOptions) -> MakeGuide | None:
    """A function `(net, latent_dim) -> guide`; None for the preset's own."""
    flow: dict[str, Any] = {"hidden": options.flow_hidden or FLOW_HIDDEN}
    if options.flow_transforms is not None:
        flow["transforms"] = options.flow_transforms
    guides: dict[str, MakeGuide] = {
        "diagonal": pv.guides.DiagonalGaussian,
        "full": pv.guides.FullGaussian,
        "low-rank": functools.partial(pv.guides.LowRankGaussian, rank=options.rank),
        "mixture": functools.partial(pv.guides.MixtureGuide, num_components=options.guide_components),
        "flow": functools.partial(pv.guides.FlowGuide, **flow),
        "spline-flow": functools.partial(pv.guides.FlowGuide, univariate=pv.guides.Spline(), **flow),
    }
    if options.guide in ("bottom-up", "top-down"):
        raise ValueError(
            f"expected a guide of one level for the vae, got {options.guide}; try --model hierarchical"
        )
    return None if options.guide is None else guides[options.guide]


# What the values of the data must be, for a likelihood to be a density of them.
SUPPORTS: dict[str, tuple[str, ...]] = {
    "bernoulli": ("binary",),
    "binomial": ("binary", "levels", "nonnegative_integer"),
    "categorical": ("levels",),
    "discretized-logistic": ("levels", "nonnegative_integer"),
    "discretized-logistic-mixture": ("levels", "nonnegative_integer"),
    "continuous-bernoulli": ("unit_interval",),
    **dict.fromkeys(
        ("poisson", "negative-binomial", "zero-inflated-negative-binomial"),
        ("binary", "levels", "nonnegative_integer"),
    ),
}
# Between which numbers they must lie.
BETWEEN = {"gamma": (0.0, math.inf), "log-normal": (0.0, math.inf), "beta": (0.0, 1.0)}


def make_likelihood(options: ModelOptions, data: Dataset) -> MakeLikelihood | None:
    """A function `(make_net, data) -> likelihood`; None for the one that suits the data.

    Raises:
        ValueError: data whose support is not the likelihood's.
    """
    if options.likelihood == "auto":
        return None
    data = prepared(data)
    name, spec = options.likelihood, data.spec
    if spec.support == "mixed":
        raise ValueError(
            f"expected --likelihood auto for a table of several kinds of columns, which takes one by the role of each, "
            f"got {name}; try to give their roles (--columns), or to ignore columns"
        )
    if spec.support not in SUPPORTS.get(name, (spec.support,)):
        grey = name == "bernoulli" and spec.support in ("levels", "unit_interval")
        hint = "--binarise dynamic" if grey else "--likelihood auto"
        raise ValueError(
            f"expected data of support {' or '.join(SUPPORTS[name])} for the {name} likelihood, got {spec.name} of "
            f"support {spec.support}; try {hint}"
        )
    if name in BETWEEN:
        check_between(name, data)
    shape, levels, parts = spec.event_shape, (data.top_count or 1) + 1, pv.likelihoods
    scale, each = options.scale, options.likelihood_components
    makers: dict[str, Callable[[Callable[[int], nn.Module]], nn.Module]] = {
        "bernoulli": lambda net: parts.Bernoulli(net(1), shape),
        "binomial": lambda net: parts.Binomial(net(1), levels - 1, shape),
        "categorical": lambda net: parts.Categorical(net(levels), levels, shape),
        "discretized-logistic": lambda net: parts.DiscretizedLogistic(net(2), levels, shape),
        "discretized-logistic-mixture": lambda net: parts.DiscretizedLogisticMixture(
            net(3 * each), levels, each, shape
        ),
        "continuous-bernoulli": lambda net: parts.ContinuousBernoulli(net(1), shape),
        "gaussian": lambda net: parts.Gaussian(net(1), scale, learn_scale=True, event_shape=shape),
        "gaussian-fixed": lambda net: parts.Gaussian(net(1), scale, event_shape=shape),
        "gaussian-per-dim": lambda net: parts.Gaussian(
            net(1), data.train.new_full(shape, scale).cpu(), learn_scale=True, event_shape=shape
        ),
        "heteroscedastic-gaussian": lambda net: parts.HeteroscedasticGaussian(net(2), event_shape=shape),
        "student-t": lambda net: parts.StudentT(net(2), event_shape=shape),
        "poisson": lambda net: parts.Poisson(net(1), event_shape=shape),
        "negative-binomial": lambda net: parts.NegativeBinomial(net(1), torch.ones(shape), event_shape=shape),
        "zero-inflated-negative-binomial": lambda net: parts.ZeroInflatedNegativeBinomial(
            net(2), torch.ones(shape), event_shape=shape
        ),
        "gamma": lambda net: parts.Gamma(net(2), event_shape=shape),
        "log-normal": lambda net: parts.LogNormal(net(2), event_shape=shape),
        "beta": lambda net: parts.Beta(net(2), event_shape=shape),
    }
    return lambda net, _: makers[name](net)


def check_between(name: str, data: Dataset) -> None:
    """Refuses data at or beyond the ends of a likelihood's open interval, where it has no density.

    Raises:
        ValueError: with the first such value.
    """
    low, high = BETWEEN[name]
    for split in ("train", "valid", "test"):
        x = data.split(split)
        outside = (x <= low) | (x >= high)
        if outside.any():
            place = tuple(outside.nonzero()[0].tolist())
            hint = "continuous-bernoulli (0 and 1 included)" if name == "beta" else "gaussian or student-t"
            ends = "above 0" if high == math.inf else "above 0 and below 1"
            raise ValueError(
                f"expected data {ends} (in float32) for the {name} likelihood, got {int(outside.sum()):,} other values "
                f"in split {split!r}, the first {float(x[place]):g} at {list(place)}; try --likelihood {hint}"
            )
