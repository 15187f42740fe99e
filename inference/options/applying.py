"""Table of which options belong to which models, objectives and parts, by which others are refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pyrovae.runs import BUILT_IN

from .estimating import EstimatorOptions
from .options import ModelOptions, TrainOptions

Owners = tuple[str, ...]
VAES: Owners = ("vae", "conditional", "semi-supervised")
NETS: Owners = (*VAES, "hierarchical", "diffusion")
LEVELS: Owners = ("hierarchical",)
DIFFUSION: Owners = ("diffusion",)

# An option to the models that have it; a program of the user's own has none of them.
OF_MODELS: dict[str, Owners] = {
    "preset": ("vae",),
    "prior": (*VAES, "hierarchical"),
    "guide": (*VAES, "hierarchical"),
    "likelihood": (*VAES, "hierarchical", "markov"),
    "scale": (*VAES, "hierarchical", "rbm", "markov"),
    "likelihood_components": (*VAES, "hierarchical"),
    "network": NETS,
    "activation": (*VAES, "hierarchical"),
    "latent_dim": (*VAES, "linear-gaussian", "markov"),
    "hidden": (*NETS, "rbm", "markov"),
    "channels": NETS,
    "components": (*VAES, "hierarchical"),
    "rank": VAES,
    "guide_components": VAES,
    "flow_hidden": (*VAES, "hierarchical"),
    "flow_transforms": (*VAES, "hierarchical"),
    "levels": LEVELS,
    "widths": LEVELS,
    "level_width": LEVELS,
    "level_blocks": LEVELS,
    "stream": LEVELS,
    "diffusion_steps": DIFFUSION,
    "noise_schedule": DIFFUSION,
    "frequencies": DIFFUSION,
    "denoiser": DIFFUSION,
    "dropout": DIFFUSION,
}
FLOWS: Mapping[str, Owners] = {
    "prior": ("flow-spline", "flow-maf", "flow-coupling"),
    "guide": ("flow", "spline-flow"),
}
# An option to the parts of a vae that have it, any one of which will do.
OF_PARTS: dict[str, Mapping[str, Owners]] = {
    "scale": {"likelihood": ("auto", "gaussian", "gaussian-fixed", "gaussian-per-dim")},
    "likelihood_components": {"likelihood": ("discretized-logistic-mixture",)},
    "components": {"prior": ("mixture", "vamp")},
    "rank": {"guide": ("low-rank",)},
    "guide_components": {"guide": ("mixture",)},
    "flow_hidden": FLOWS,
    "flow_transforms": FLOWS,
}
# An option to the objectives that have it.
OF_OBJECTIVES: dict[str, Owners] = {
    "gibbs_steps": ("cd", "pcd", "tempering"),
    "gibbs_chains": ("pcd", "tempering"),
    "ladder": ("tempering",),
    "exact_likelihood": ("cd", "pcd", "tempering"),
    "particles": ("trace-elbo", "mean-field", "renyi", "iwae", "dreg", "stl"),
    "free_bits": ("trace-elbo", "mean-field", "stl", "iwae", "dreg"),
}
# An option to the estimators that have it.
AIS: Owners = ("ais", "smc")
OF_ESTIMATORS: dict[str, Owners] = {
    "num_samples": ("elbo", "closed-elbo", "is", "defensive-is", "own-is", "jackknife"),
    "defensive": ("defensive-is",),
    "tolerance": ("adaptive",),
    "max_samples": ("adaptive",),
    "replicates": ("mlmc",),
    "temperatures": AIS,
    "chains": AIS,
    "start": AIS,
    "leapfrog": AIS,
    "partition_temperatures": ("normalised",),
    "partition_chains": ("normalised",),
}


def refuse_unused(models: Sequence[ModelOptions], train: Sequence[TrainOptions] = ()) -> None:
    """Refuses an option that none of these models (or objectives) has.

    Raises:
        ValueError: naming the option and the models.
    """
    if any(":" not in m.model and m.model not in BUILT_IN for m in models):
        return  # no model at all: it is refused where it is looked for
    default = ModelOptions()
    named = sorted({m.model for m in models})
    for option, owners in OF_MODELS.items():
        given = [m for m in models if getattr(m, option) != getattr(default, option)]
        if not given:
            continue
        value = _shown(getattr(given[0], option))
        if not any(m.model in owners for m in given):
            raise ValueError(
                f"expected no {_flag(option)} for --model {' or '.join(named)}, which does not have it, got {value}; "
                f"it belongs to {', '.join(owners)}"
            )
        parts = OF_PARTS.get(option)
        if parts is not None and not any(_has(m, parts) for m in given if m.model in owners):
            wanted = " or ".join(f"--{part} {' | '.join(names)}" for part, names in parts.items())
            raise ValueError(
                f"expected no {_flag(option)} for these parts, which do not have it, got {value}; it belongs to "
                f"{wanted}"
            )
    own = TrainOptions()
    if train and models and all(m.model != "semi-supervised" for m in models):
        wrong = [t.alpha for t in train if t.alpha != own.alpha]
        if wrong:
            raise ValueError(
                f"expected no --alpha for --model {' or '.join(named)}, which does not have it, got {wrong[0]:g}; it "
                "belongs to semi-supervised"
            )
    for option, owners in OF_OBJECTIVES.items():
        chosen = [t for t in train if getattr(t, option) != getattr(own, option)]
        if chosen and not any(t.objective in owners for t in chosen):
            objectives = " or ".join(sorted({t.objective for t in chosen}))
            raise ValueError(
                f"expected no {_flag(option)} with --objective {objectives}, which does not have it, got "
                f"{_shown(getattr(chosen[0], option))}; it belongs to {', '.join(owners)}"
            )


def refuse_unasked(options: EstimatorOptions, asked: Sequence[str]) -> None:
    """Refuses an option of an estimator that is not asked for.

    Args:
        options: of the estimators.
        asked: names of those that will run.

    Raises:
        ValueError: naming the option, and the estimators that have it.
    """
    default = EstimatorOptions()
    for option, owners in OF_ESTIMATORS.items():
        value = getattr(options, option)
        if value != getattr(default, option) and not set(owners) & set(asked):
            raise ValueError(
                f"expected no {_flag(option)} with --estimators {' '.join(asked)}, which do not have it, got "
                f"{_shown(value)}; it belongs to {', '.join(owners)}"
            )


def without_sizes(model: str) -> ModelOptions:
    """Options of a program of the user's own, which has no sizes of ours."""
    return dataclasses.replace(ModelOptions(), model=model)


def _has(model: ModelOptions, parts: Mapping[str, Owners]) -> bool:
    if model.preset is not None or model.model == "rbm":  # which brings parts of its own
        return True
    return any(getattr(model, part) in names for part, names in parts.items())


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def refuse_parts(options: ModelOptions, names: Sequence[str], model: str) -> None:
    """Refuses parts of a vae for a model that has none of its own.

    Raises:
        ValueError: naming the first option that was given.
    """
    for name in names:
        if getattr(options, name) is not None:
            raise ValueError(
                f"expected no --{name.replace('_', '-')} for {model}, which has none of its own, got "
                f"{getattr(options, name)}"
            )
    if options.likelihood != "auto":
        raise ValueError(f"expected --likelihood auto for {model}, got {options.likelihood}")
