"""Sequences of different lengths, padded to one: an array `[N, T, *event]` and the length of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import check_event, to_real
from ..raw import Raw, Request, Size
from ..splitting import split_rows

SPLITS = ("train", "valid", "test")
DEFAULT_SIZES: dict[str, Size] = {"valid": 0.1, "test": 0.2}


def is_sequences(source: Mapping[Any, Any]) -> bool:
    """Whether a mapping holds sequences: x and lengths, or splits with theirs."""
    keys = {str(k) for k in source}
    return "lengths" in keys or "train_lengths" in keys


def load_sequences(name: str, source: Mapping[Any, Any], request: Request) -> Raw:
    """Sequences `x` `[N, T, D]` with `lengths` `[N]`, or `train` with `train_lengths` and so on.

    What stands beyond a sequence's end is set to 0, so that it says nothing.

    Raises:
        ValueError: other keys, lengths that are no whole numbers in 1 ... T, or values that are no sequences.
    """
    if request.columns is not None or request.label_column is not None:
        raise ValueError(f"expected no columns= and label_column= with sequences, got them for {name!r}")
    keys = {str(k) for k in source}
    if keys == {"x", "lengths"}:
        x = to_real(source["x"], repr(name))
        lengths = checked_lengths(source["lengths"], x, repr(name))
        sizes = {
            s: default if getattr(request, s) is None else getattr(request, s)
            for s, default in DEFAULT_SIZES.items()
        }
        rows = split_rows(len(x), sizes, request.seed)
        x = padded(x, lengths, x.shape[1], repr(name))
        parts = {s: (x[r], lengths[r]) for s, r in rows.items()}
        return _raw(name, parts, rows)
    if keys == {*SPLITS, *(f"{s}_lengths" for s in SPLITS)}:
        request.refuse_sizes(name, "valid", "test")
        parts = {}
        steps = max(np.asarray(source[s]).shape[1] for s in SPLITS if np.asarray(source[s]).ndim > 1)
        for s in SPLITS:
            x = to_real(source[s], f"split {s!r}")
            lengths = checked_lengths(source[f"{s}_lengths"], x, f"split {s!r}")
            parts[s] = padded(x, lengths, steps, f"split {s!r}"), lengths
        return _raw(name, parts, None)
    raise ValueError(
        f"expected sequences in {name!r} as x and lengths, or as train, valid and test, each with its lengths "
        f"(train_lengths ...), got the keys {sorted(keys)}"
    )


def checked_lengths(lengths: Any, x: Tensor, name: str) -> Tensor:
    """Lengths `[N]` as int64.

    Raises:
        ValueError: none, or not one whole number in 1 ... T for each sequence.
    """
    check_event(x, name)
    if x.dim() < 3:
        raise ValueError(
            f"expected sequences [N, T, D] in {name}, got {list(x.shape)}; try x[..., None] where each step is one "
            "number"
        )
    if lengths is None:
        raise ValueError(f"expected the lengths of the sequences of {name}, got none; try the key lengths")
    found = np.asarray(lengths)
    whole = found.shape == (len(x),) and found.dtype.kind in "iuf" and bool((found == np.floor(found)).all())
    if not whole or found.min() < 1 or found.max() > x.shape[1]:
        raise ValueError(
            f"expected a length of 1 to {x.shape[1]} steps for each of the {len(x)} sequences of {name}, got "
            f"{found.tolist() if found.size < 8 else f'{found.dtype} {list(found.shape)}'}"
        )
    return torch.from_numpy(found.astype(np.int64))


def padded(x: Tensor, lengths: Tensor, steps: int, name: str) -> Tensor:
    """Sequences of `steps` steps, 0 beyond their ends.

    Raises:
        ValueError: longer ones.
    """
    if int(lengths.max()) > steps:
        raise ValueError(
            f"expected sequences of at most {steps} steps in {name}, as in training, got one of {int(lengths.max())}"
        )
    out = x.new_zeros(len(x), steps, *x.shape[2:])
    out[:, : min(steps, x.shape[1])] = x[:, :steps]
    beyond = torch.arange(steps, device="cpu") >= lengths[:, None]
    return out.masked_fill(beyond.reshape(*beyond.shape, *(1,) * (x.dim() - 2)), 0.0)


def _raw(name: str, parts: dict[str, tuple[Tensor, Tensor]], rows: dict[str, Tensor] | None) -> Raw:
    splits = {s: parts[s][0] for s in SPLITS}
    return Raw(name, splits, rows=rows, lengths={s: parts[s][1] for s in SPLITS})
