"""Building of objects from option names: data sets, parts, programs."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

import torch
from pyro.infer import RenyiELBO, Trace_ELBO, TraceMeanField_ELBO
from torch import nn

import pyrovae as pv
from pyrovae import runs
from pyrovae.data import Dataset
from pyrovae.data.given.conditioned import LENGTHS
from pyrovae.data.spec import KNOWN
from pyrovae.models.linear_gaussian import LinearGaussian
from pyrovae.programs.placed import placed
from pyrovae.runs.loading import as_pair

from .diffusion_parts import build_diffusion
from .given.conditional import build_conditional
from .given.markov import build_markov
from .given.semi_supervised import build_semi_supervised
from .level_parts import build_hierarchical
from .machine import DeviceName
from .options import DataOptions, ModelOptions, ObjectiveName
from .pair import Pair
from .parts import LATENT_DIM, build_vae
from .rbm_parts import build_rbm
from .stored import options_from


def device_of(name: DeviceName) -> torch.device:
    """The device that `--device` means here."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("expected a CUDA device for --device cuda, got none; try --device cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def load_data(options: DataOptions, device: torch.device) -> Dataset:
    """The data set that the options name."""
    source = pv.data.load(
        options.data,
        options.root,
        binarise=options.binarise,
        seed=options.data_seed,
        train=options.train_size,
        L=options.L,
        T=options.T,
        standardize=options.standardize,
        log=options.log_columns,
        missing=options.missing,
        columns=options.columns,
        label_column=options.label_column,
        layer=options.layer,
    )
    return pv.data.with_given(source, options.condition, options.labelled).to(device)


def absolute(options: DataOptions) -> DataOptions:
    """The same, a file by its absolute path: a run is opened from elsewhere, too."""
    if options.data in pv.data.NAMES or not os.path.exists(os.path.expanduser(options.data)):
        return options
    return dataclasses.replace(options, data=os.path.abspath(os.path.expanduser(options.data)))


def build(options: ModelOptions, data: Dataset, seed: int) -> Pair:
    """The program that the options name, its weights drawn under `seed`."""
    options.check()
    if options.preset is not None and options.model != "vae":
        raise ValueError(f"expected --model vae with a preset, got {options.model} and {options.preset}")
    refuse_tables(options, data)
    _check_given(options, data)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if options.model in GIVEN:
            owner: Any = GIVEN[options.model][0](options, data)
        elif options.model == "vae":
            owner = build_vae(options, data)
        elif options.model == "hierarchical":
            owner = build_hierarchical(options, data)
        elif options.model == "diffusion":
            owner = build_diffusion(options, data)
        elif options.model == "rbm":
            owner = build_rbm(options, data)
        elif options.model == "linear-gaussian":
            if data.spec.support != "real":
                raise ValueError(f"expected real data for linear-gaussian, got {data.spec.support} data")
            owner = LinearGaussian.random(data.train[0].numel(), options.latent_dim or LATENT_DIM)
        else:
            owner = imported(options.model)
            if callable(owner) and not hasattr(owner, "model"):
                owner = owner(data)
    if isinstance(owner, nn.Module):
        owner.to(data.train.device)
    pair = as_pair(owner, options.model)
    if ":" in options.model:  # of a user's file, which is this command's alone
        pair = placed(*pair, data.train.device, tensors=True)
    return Pair(*pair)


def refuse_tables(options: ModelOptions, data: Dataset) -> None:
    """Refuses standardised data and missing values for models that do not take them.

    Raises:
        ValueError: naming the option.
    """
    takers = ("vae", "hierarchical", "conditional", "semi-supervised")
    if options.model in takers or ":" in options.model:
        return
    for option, value in (
        ("--standardize", data.spec.standardization),
        ("--missing", data.spec.missing),
        ("--columns", data.spec.table),
    ):
        if value is not None and (option != "--columns" or data.spec.support == "mixed"):
            raise ValueError(
                f"expected no {option} with --model {options.model}, which does not take it; it belongs to "
                f"{', '.join(takers)}"
            )


# Models that take more than x: what builds them, and what has to be asked for.
GIVEN: dict[str, tuple[Any, str]] = {
    "conditional": (build_conditional, "--condition label, or names of columns"),
    "semi-supervised": (build_semi_supervised, "--labelled N, or --labelled all"),
    "markov": (build_markov, "an .npz file with x [N, T, D] and lengths [N]"),
}


def kind_for(data: Dataset) -> str | None:
    """The built-in model that takes what these data give; None for those of x alone."""
    given = data.spec.given
    return {KNOWN: "semi-supervised", LENGTHS: "markov"}.get(given[0], "conditional") if given else None


def _check_given(options: ModelOptions, data: Dataset) -> None:
    """Refuses a model that does not take what the data give, or takes what they do not."""
    given, kind = data.spec.given, kind_for(data)
    if options.model in GIVEN and options.model != kind:
        raise ValueError(
            f"expected {GIVEN[options.model][1]} with --model {options.model}, got data with "
            f"{', '.join(given) or 'nothing'} given"
        )
    if kind is not None and options.model in runs.BUILT_IN and options.model != kind:
        raise ValueError(
            f"expected --model {kind} for data with {', '.join(given)} given, got {options.model}, which takes x alone "
            f"(in Python: of models.composing.{kind.replace('-', '_')})"
        )


def rebuild(config: dict[str, Any], data: Dataset) -> Pair:
    """The programs that a run's configuration names, for `pv.load`.

    Raises:
        ValueError: options that this version does not know.
    """
    options, train = config["model"], config.get("train")
    seed = train.get("seed") if isinstance(train, dict) else None
    if not isinstance(train, dict) or type(seed) is not int or not 0 <= seed < 2**63:
        raise ValueError(f"expected the seed of the run's weights in its config, got {train!r}")
    return build(options_from(ModelOptions, options), data, train["seed"])


runs.register_builder(rebuild)


def build_objective(name: ObjectiveName, particles: int | None = None) -> Any:
    """The objective of that name with so many draws a datum; by default 1, renyi 2, iwae and dreg 8.

    Raises:
        ValueError: for fewer draws than the objective needs.
    """
    least = 2 if name in ("renyi", "dreg") else 1
    if particles is not None and particles < least:
        raise ValueError(f"expected particles >= {least} with {name}, got {particles}")
    if name in ("cd", "pcd", "tempering"):
        raise ValueError(
            f"expected an objective made of draws of a guide, got {name}, which trains an rbm (--model rbm)"
        )
    own = {"renyi": 2, "iwae": 8, "dreg": 8}.get(name, 1)
    number = own if particles is None else particles
    makers: dict[str, Any] = {
        "trace-elbo": functools.partial(Trace_ELBO, vectorize_particles=number > 1),
        "mean-field": functools.partial(TraceMeanField_ELBO, vectorize_particles=number > 1),
        "renyi": functools.partial(RenyiELBO, alpha=0.0),
        "iwae": pv.objectives.IWAE,
        "dreg": pv.objectives.DReG,
        "stl": pv.objectives.STL,
    }
    return makers[name](num_particles=number)


def imported(reference: str) -> Any:
    """The object at `package.module:attribute` or `file.py:attribute`.

    Raises:
        ValueError: not of that form, or no such attribute.
        FileNotFoundError, ImportError: no such file or module.
    """
    where, _, name = reference.rpartition(":")
    if not where or not name:
        raise ValueError(
            f"expected {', '.join(runs.BUILT_IN)}, package.module:attribute or "
            f"file.py:attribute, got {reference!r}"
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
