"""Arguments of `pv.compare`, checked before anything is built."""

from __future__ import annotations

import copy
import dataclasses
import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch

import pyrovae as pv
from pyrovae.checking import KINDS
from pyrovae.data import Dataset
from pyrovae.data.given.scalars import load_with_scalars
from pyrovae.text import has_controls, meant

from ..options.building import build_objective
from ..options.options import GuideName, LikelihoodName, ObjectiveName, PriorName, SizeOptions
from ..options.rbm_parts import PHASES

FIT = inspect.signature(pv.fit).parameters
# Those of pv.fit that each cell has of its own, or that one of several cells cannot have.
TAKEN = {
    *("model", "guide", "data", "objective", "seed", "checkpoint", "checkpoint_every", "checkpoint_steps"),
    *("keep", "resume", "log", "on_epoch", "split", "given"),
}
SIZES = {f.name for f in dataclasses.fields(SizeOptions)}
OBJECTIVES = tuple(name for name in get_args(ObjectiveName) if name not in PHASES)
PARTS: dict[str, tuple[str, ...]] = {
    "priors": get_args(PriorName),
    "guides": tuple(name for name in get_args(GuideName) if name not in ("bottom-up", "top-down")),
    "likelihoods": get_args(LikelihoodName),
}


@dataclass(frozen=True)
class Arguments:
    """Arguments of `pv.fit` of a cell, new at each call: objectives and optimizers may have state."""

    objective: Any  # a name, or an objective
    options: Mapping[str, Any]
    seed: int

    def __call__(self) -> dict[str, Any]:
        """All of them by name."""
        named = isinstance(self.objective, str)
        own = {k: copy.deepcopy(v) if k == "optim" else v for k, v in self.options.items()}
        objective = build_objective(self.objective) if named else copy.deepcopy(self.objective)
        return {**own, "objective": objective, "seed": self.seed}


def data_of(given: Any, parts: bool = False) -> Dataset:
    """A data set as it is; of what `pv.data.load` takes, of scalar data `[N]`, or of `(x, *context)`, what it gives.

    Args:
        given: the data.
        parts: whether programs are composed of parts, which take rows `[N, D]`.

    Raises:
        TypeError: neither.
        ValueError: as `pv.data.load`; scalar data for parts.
    """
    if isinstance(given, Dataset):
        return given
    if isinstance(given, pv.data.Stream):
        raise TypeError(
            "expected data with a test split, got a Stream, which has rows to train on alone; try pv.fit of each "
            "program on it, and pv.evidence of each on the same x, which first.compare(second) compares"
        )
    if isinstance(given, tuple) and given and all(isinstance(v, torch.Tensor | np.ndarray) for v in given):
        x, *context = given
        return pv.data.with_context(data_of(x, parts), *context) if context else data_of(x, parts)
    if given is None or isinstance(given, bool | int | float | list | tuple | set) or callable(given):
        raise TypeError(
            f"expected data of pv.data.load, or what it takes, got {type(given).__name__}; try "
            'pv.compare(programs, pv.data.load("digits")), or for a context pv.data.with_context(pv.data.load(x), c)'
        )
    return pv.data.load(given) if parts else load_with_scalars(given)


def seeds_of(given: Any) -> tuple[int, ...]:
    """Seeds as whole numbers; a number n is 0 ... n - 1.

    Raises:
        ValueError: none, one twice, or one that is no whole number >= 0.
    """
    if isinstance(given, int) and not isinstance(given, bool):
        given = range(KINDS["epochs"](given, "seeds", None))
    if isinstance(given, str) or not isinstance(given, Sequence | range):
        raise ValueError(f"expected seeds as whole numbers, got {given!r}; try seeds=(0, 1, 2)")
    seeds = tuple(KINDS["seed"](seed, "a seed", None) for seed in given)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"expected at least one seed and none twice, got {seeds}")
    return seeds


def estimators_of(given: Any) -> tuple[Any, ...]:
    """Estimators of the evidence.

    Raises:
        TypeError, ValueError: no list of them; none, or two of one name.
    """
    found = tuple(KINDS["estimators"](given, "estimators", None))
    names = [e.name for e in found]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"expected at least one estimator and no name twice, got {names}")
    return found


def objectives_of(given: Any) -> dict[str, Any]:
    """Objectives by name: the name itself for those of the command line.

    Raises:
        TypeError, ValueError: an unknown name, one twice, none, or what is no objective.
    """
    if isinstance(given, Mapping):
        found = {
            _name(n, "an objective"): KINDS["objective"](o, f"objective {n!r}", None)
            for n, o in given.items()
        }
    else:
        names = _listed(given, "objectives", "an objective of Pyro's by a name of yours")
        found = {_among(n, OBJECTIVES, "objectives"): n for n in names}
        if len(found) < len(names):
            raise ValueError(f"expected no objective twice, got {', '.join(names)}")
    if not found:
        raise ValueError(f"expected at least one objective, got none; try {OBJECTIVES[0]!r}")
    return found


def parts_of(given: Any, kind: str) -> dict[str, Callable[..., Any] | None]:
    """Parts by name: functions that build them, or None for those of the command line.

    Raises:
        TypeError, ValueError: an unknown name, one twice, none, or what is no function.
    """
    found: dict[str, Callable[..., Any] | None]
    if isinstance(given, Mapping):
        found = {_name(n, f"one of {kind}"): b for n, b in given.items()}
        for name, builder in found.items():
            if not callable(builder) or isinstance(builder, torch.nn.Module):
                raise TypeError(
                    f"expected {kind} {name!r} to be a function of the data that builds one, got "
                    f"{type(builder).__name__}; try lambda data: ..., which builds a new one for each cell"
                )
    else:
        names = _listed(given, kind, "a function of the data by a name of yours")
        found = {_among(n, PARTS[kind], kind): None for n in names}
        if len(found) < len(names):
            raise ValueError(f"expected no name twice in {kind}, got {', '.join(names)}")
    if not found:
        raise ValueError(f"expected at least one name in {kind}, got none; try {PARTS[kind][0]!r}")
    return found


def programs_of(given: Any) -> dict[str, Any]:
    """Programs by name.

    Raises:
        TypeError, ValueError: no dict of them, an empty one, or names that are none.
    """
    if not isinstance(given, Mapping):
        raise TypeError(
            f"expected programs by name, got {type(given).__name__}; try pv.compare({{'mine': (model, guide)}}, data)"
        )
    if not given:
        raise ValueError("expected at least one program, got none; try {'mine': (model, guide)}")
    return {_name(name, "a program"): program for name, program in given.items()}


def options_of(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options of `pv.fit`, checked, and sizes of the parts.

    Raises:
        TypeError, ValueError: an unknown option, one that each cell has of its own, or a wrong value.
    """
    fit: dict[str, Any] = {}
    sizes: dict[str, Any] = {}
    for name, value in given.items():
        if name in SIZES:
            sizes[name] = tuple(value) if isinstance(value, list) else value
        elif name in FIT and name not in TAKEN:
            default = FIT[name].default
            plain = name not in KINDS or (value is None and default is None)
            fit[name] = value if plain else KINDS[name](value, name, default)
        elif name == "given":
            raise TypeError(
                "expected programs whose globals are conditioned on, got given=; try {'mine': (pyro.condition(model, "
                "{'name': value}), guide)}"
            )
        elif name in TAKEN:
            raise TypeError(
                f"expected options of pv.fit that all cells can share, got {name}=, which each has of its own"
            )
        else:
            known = sorted((SIZES | set(FIT)) - TAKEN)
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}=?" if close else f"; try one of {', '.join(known)}"
            raise TypeError(f"expected options of pv.fit or sizes of parts, got {name}={hint}")
    if isinstance(fit.get("optim"), torch.optim.Optimizer):
        raise TypeError(
            "expected optim to be what makes an optimizer, got one that has its parameters already; try "
            "torch.optim.AdamW or functools.partial(torch.optim.AdamW, weight_decay=0.1)"
        )
    return fit, sizes


def _name(name: Any, what: str) -> str:
    if not isinstance(name, str) or not name.strip() or has_controls(name):
        raise TypeError(f"expected a name of {what} in plain text, got {name!r}")
    return name


def _listed(given: Any, kind: str, other: str) -> list[str]:
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, Sequence) or not all(isinstance(n, str) for n in names):
        raise TypeError(f"expected {kind} as a list of names, or a dict of {other}, got {given!r:.80}")
    return list(names)


def _among(name: str, known: tuple[str, ...], kind: str) -> str:
    if name not in known:
        hint = meant(name, known) or f"try a dict {{{name!r}: ...}} for one of your own"
        raise ValueError(f"expected {kind} among {', '.join(known)}, got {name!r}; {hint}")
    return name
