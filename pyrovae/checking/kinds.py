"""Kinds that arguments have by their names, and the words of a refusal."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .arrays import as_tensor, as_tensors


def _wrong(name: str, words: str, value: Any, hint: str = "") -> TypeError:
    shown = repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
    return TypeError(f"expected {name} to be {words}, got {shown}{hint}")


def _program(value: Any, name: str, _: Any) -> Any:
    if not callable(value) or isinstance(value, type):
        hint = "; try model and guide as two arguments" if isinstance(value, tuple) else ""
        raise _wrong(name, "a function of (x, *context)", value, hint)
    return value


def _data(value: Any, name: str, _: Any) -> Any:
    value = as_tensor(value, name)
    if not isinstance(value, Tensor):
        hint = f"; try {name}.test" if hasattr(value, "test") else "; try torch.as_tensor(...)"
        hint = f"; try {name}.to_numpy()" if hasattr(value, "to_numpy") else hint
        raise _wrong(name, "a torch.Tensor (or a numpy array) [N, *event]", value, hint)
    return value


def _rows(value: Any, name: str, _: Any) -> Any:
    if isinstance(value, tuple | list) and not hasattr(value, "_fields") and value:
        return type(value)((_rows(value[0], name, _), *map(as_tensors, value[1:])))
    if hasattr(value, "to_numpy"):
        words = "a data set, a tensor or a numpy array [N, *event], or a tuple (x, *context)"
        raise _wrong(name, words, value, "; try .to_numpy()")
    return as_tensor(value, name)


def _given(value: Any, name: str, _: Any) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong(name, "values by name of a latent", value, '; try {"w": torch.tensor(0.5)}')
    return {k: torch.tensor(v) if isinstance(v, int | float) else as_tensors(v) for k, v in value.items()}


def _whole(least: int) -> Callable[[Any, str, Any], int]:
    def take(value: Any, name: str, _: Any) -> int:
        try:
            if isinstance(value, bool):
                raise TypeError
            number = operator.index(value)
        except TypeError:
            number = None
        if number is None or number < least:
            shown = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise ValueError(f"expected {name} to be a whole number >= {least}, got {shown}")
        return number

    return take


def _a(words: str, kinds: Any) -> Callable[[Any, str, Any], Any]:
    def take(value: Any, name: str, _: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise _wrong(name, words, value)
        return value

    return take


_NUMBERS = int | float | np.number
_path = _a("a path", str | os.PathLike)
_function = _a("a function", Callable)


def _schedule(value: Any, name: str, _: Any) -> Any:
    if not callable(value):
        if isinstance(value, bool) or not isinstance(value, _NUMBERS):
            raise _wrong(
                name, "a number or a function of the epoch", value, "; try pv.Warmup or pv.Exponential"
            )
        return value
    _a("a number", _NUMBERS | Tensor)(value(0.0), f"{name}(epoch)", None)
    return value


def _compile(value: Any, name: str, default: Any) -> Any:
    allowed = (True, False, "auto") if default == "auto" else (True, False)
    if not isinstance(value, bool | str) or value not in allowed:
        raise ValueError(f"expected {name} to be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def _resume(value: Any, name: str, default: Any) -> Any:
    if default is None:
        return _path(value, f"{name} (a folder)", default)
    if not isinstance(value, bool):
        raise _wrong(name, "True or False", value, "; try checkpoint=folder, resume=True")
    return value


def _progress(value: Any, name: str, default: Any) -> Any:
    if default is True and isinstance(value, bool | None):
        return value
    return _function(value, name, default)


def _ais(value: Any, name: str, _: Any) -> Any:
    if isinstance(value, type) or not (hasattr(value, "num_temperatures") and hasattr(value, "num_chains")):
        hint = f"; try {name}=pv.AIS(100, 16), and temperatures= for several numbers of them"
        raise _wrong(name, "AIS", value, hint)
    return value


def _objective(value: Any, name: str, _: Any) -> Any:
    if isinstance(value, str | type) or not (callable(value) or hasattr(value, "loss")):
        shown = value.__name__ if isinstance(value, type) else repr(value)
        raise TypeError(f"expected {name} to be an ELBO object, got {shown}; try pyro.infer.Trace_ELBO()")
    return value


def _groups(value: Any, name: str, _: Any) -> Any:
    if not isinstance(value, Mapping) or not all(isinstance(v, Mapping) for v in value.values()):
        raise _wrong(name, "options by glob of parameter names", value, '; try {"prior*": {"lr": 1e-4}}')
    return value


def _estimators(value: Any, name: str, _: Any) -> Any:
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    wrong = [e for e in value if isinstance(e, type) or not hasattr(e, "name")] if listed else []
    if not listed or wrong:
        one = wrong[0] if wrong else value
        shown = one.__name__ if isinstance(one, type) else repr(one)
        raise TypeError(
            f"expected {name} to be a list of estimators, got {shown}; try [pv.ELBO(), pv.IS(5000)]"
        )
    return value


def _shard(value: Any, name: str, _: Any) -> Any:
    pair = isinstance(value, tuple | list) and len(value) == 2
    if not pair or not all(isinstance(v, int) and not isinstance(v, bool) for v in value):
        raise _wrong(name, "(i, n), two whole numbers", value, "; try shard=(0, 4)")
    return tuple(value)


def _like(*attributes: str, try_: str) -> Callable[[Any, str, Any], Any]:
    def take(value: Any, name: str, _: Any) -> Any:
        if isinstance(value, type) or not all(hasattr(value, a) for a in attributes):
            raise _wrong(name, f"an object like {try_}", value)
        return value

    return take


# A parameter's name to what it has to be, in every function that is `checked`.
KINDS: dict[str, Callable[[Any, str, Any], Any]] = {
    **dict.fromkeys(("model", "guide"), _program),
    "x": _data,
    **dict.fromkeys(("data", "valid"), _rows),
    **dict.fromkeys(("epochs", "batch_size", "patience", "metric_samples", "keep", "num_samples"), _whole(1)),
    **dict.fromkeys(("checkpoint_every", "checkpoint_steps", "budget", "simulate", "num_data"), _whole(1)),
    **dict.fromkeys(("seed", "max_returns"), _whole(0)),
    **dict.fromkeys(("free_bits", "clip_norm", "ema", "delta"), _a("a number", _NUMBERS)),
    **dict.fromkeys(("lr", "beta"), _schedule),
    **dict.fromkeys(("checkpoint", "log", "run", "folder"), _path),
    "on_epoch": _function,
    "progress": _progress,
    "ais": _ais,
    "compile": _compile,
    "resume": _resume,
    **dict.fromkeys(("plate", "observed", "site"), _a("a name", str)),
    "objective": _objective,
    "groups": _groups,
    "estimators": _estimators,
    "shard": _shard,
    "given": _given,
    "chunk": _like("data", "samples", try_="pv.Chunk(data=100, samples=128)"),
}
