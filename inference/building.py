"""From option names to objects: data sets, parts, programs."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pyro.infer import RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from torch import nn

import pyrovae as pv
from pyrovae.data import Dataset
from pyrovae.models.linear_gaussian import LinearGaussian
from pyrovae.models.vae import VAE

from .options import DataOptions, DeviceName, ModelOptions, ObjectiveName, TrainOptions


class Pair(NamedTuple):
    """A Pyro model and its guide."""

    model: Callable[..., Any]
    guide: Callable[..., Any]


def device_of(name: DeviceName) -> torch.device:
    """The device that `--device` means here."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("expected a CUDA device for --device cuda, got none; try --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def load_data(options: DataOptions, device: torch.device) -> Dataset:
    """The data set that the options name."""
    source = pv.data.load(options.data, options.root, binarise=options.binarise, seed=options.data_seed)
    return source.to(device)


def build(options: ModelOptions, data: Dataset, seed: int) -> Pair:
    """The program that the options name, its weights drawn under `seed`."""
    options.check()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if options.model == "vae":
            owner: Any = build_vae(options, data)
        elif options.model == "linear-gaussian":
            if data.spec.support != "real":
                raise ValueError(f"expected real data for linear-gaussian, got {data.spec.support} data")
            owner = LinearGaussian.random(data.train[0].numel(), options.latent_dim)
        else:
            owner = imported(options.model)
            if callable(owner) and not hasattr(owner, "model"):
                owner = owner(data)
    if isinstance(owner, nn.Module):
        owner.to(data.train.device)
    if hasattr(owner, "model") and hasattr(owner, "guide"):
        return Pair(owner.model, owner.guide)
    if isinstance(owner, tuple) and len(owner) == 2 and all(callable(p) for p in owner):
        return Pair(*owner)
    raise ValueError(
        f"expected {options.model} to give a (model, guide) pair or an object with .model and .guide, got "
        f"{type(owner).__name__}"
    )


def build_vae(options: ModelOptions, data: Dataset) -> VAE:
    """A VAE of parts; grey levels and their inverse are scaled inside the networks."""
    spec = data.spec
    size, levels = math.prod(spec.event_shape), spec.levels
    if len(spec.event_shape) != 1:
        raise ValueError(
            f"expected flat data [N, D] for the built-in vae, got event shape {spec.event_shape}"
        )
    grey = levels is not None and spec.support == "levels"
    top = float(levels - 1) if grey and levels is not None else 1.0
    *inner, features = options.hidden
    encoder = pv.networks.MLP(
        size, (*inner, features), preprocess=pv.networks.Rescale(1 / top) if grey else None
    )
    make: Any = {
        "diagonal": pv.guides.DiagonalGaussian,
        "full": pv.guides.FullGaussian,
        "flow": functools.partial(pv.guides.FlowGuide, hidden=options.flow_hidden),
    }[options.guide]
    guide = make(encoder, options.latent_dim)

    decoder = pv.networks.MLP(options.latent_dim, options.hidden[::-1], size)
    kind = options.likelihood
    if kind == "auto":
        kind = {"binary": "bernoulli", "levels": "binomial"}.get(spec.support, "gaussian")  # type: ignore[assignment]
    if kind in ("bernoulli", "binomial") and spec.support in ("binary", "levels"):
        pv.networks.set_output_bias(decoder, pv.networks.logit_of_mean(data.train.cpu(), high=top))
    make_likelihood: dict[str, Any] = {
        "bernoulli": lambda: pv.likelihoods.Bernoulli(decoder),
        "binomial": lambda: pv.likelihoods.Binomial(decoder, int(top)),
        "gaussian": lambda: pv.likelihoods.Gaussian(decoder, learn_scale=True),
    }
    likelihood = make_likelihood[kind]()

    prior = {
        "standard": lambda: pv.priors.StandardNormal(options.latent_dim),
        "mixture": lambda: pv.priors.GaussianMixture(options.latent_dim, options.components),
        "vamp": lambda: pv.priors.VampPrior(guide, *_pseudo_inputs(data, options.components, top)),
    }[options.prior]()
    return VAE(prior=prior, likelihood=likelihood, guide=guide)


def _pseudo_inputs(data: Dataset, components: int, top: float) -> tuple[Any, ...]:
    if not 1 <= components <= len(data.train):
        raise ValueError(f"expected 1 to {len(data.train)} components, got {components}")
    start = data.train[:components].cpu()
    return (start, 0.0, top) if data.spec.support in ("binary", "levels") else (start,)


def build_objective(name: ObjectiveName) -> Any:
    """One of Pyro's ELBOs."""
    makers: dict[str, Any] = {
        "trace-elbo": Trace_ELBO,
        "mean-field": TraceMeanField_ELBO,
        "renyi": functools.partial(RenyiELBO, alpha=0.0, num_particles=2),
    }
    return makers[name]()


def schedules(options: TrainOptions) -> dict[str, Any]:
    """Learning rate and KL weight over the epochs."""
    lr = options.lr if options.lr_end is None else pv.Exponential(options.lr, options.lr_end, options.epochs)
    beta = pv.Warmup(options.warmup) if options.warmup > 0 and options.objective != "renyi" else 1.0
    return {"lr": lr, "beta": beta}


def imported(reference: str) -> Any:
    """The object at `package.module:attribute` or `file.py:attribute`.

    Raises:
        ValueError: not of that form, or no such attribute.
        FileNotFoundError, ImportError: no such file or module.
    """
    where, _, name = reference.rpartition(":")
    if not where or not name:
        raise ValueError(
            f"expected vae, linear-gaussian, package.module:attribute or file.py:attribute, got {reference!r}"
        )
    if where.endswith(".py"):
        path = Path(where)
        if not path.is_file():
            raise FileNotFoundError(f"expected a Python file, got {path}, which does not exist")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(path.stem, module)
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(where)
    if not hasattr(module, name):
        raise ValueError(f"expected an attribute {name!r} in {where}, got a module without it")
    return getattr(module, name)
