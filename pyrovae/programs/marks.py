"""Context arguments marked as per datum or as shared by all data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Marked:
    """A context argument with what `per_datum` or `shared` says of it; programs see `value` alone."""

    value: Any
    per_datum: bool


def per_datum(value: Any) -> Marked:
    """Marks context that has one row per datum: a tensor `[N, ...]`, or a tuple, list or dict of such tensors.

    Raises:
        TypeError: for a value that holds no tensor with rows.
    """
    tensors = list(tensors_in(value))
    if not tensors or any(t.dim() == 0 for t in tensors):
        raise TypeError(
            f"expected a tensor [N, ...], or a tuple, list or dict of them, got {type(value).__name__}"
        )
    return Marked(value, True)


def shared(value: Any) -> Marked:
    """Marks context that all data share, whatever its size (a codebook of N rows): it is passed whole."""
    return Marked(value, False)


def change(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """`value` with `leaf` applied to all that is no tuple, list or dict."""
    if isinstance(value, tuple):
        items = [change(v, leaf) for v in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, list):
        return [change(v, leaf) for v in value]
    if isinstance(value, dict):
        return {k: change(v, leaf) for k, v in value.items()}
    return leaf(value)


def unmarked(value: Any) -> Any:
    """What a program is given."""
    return change(value, lambda v: unmarked(v.value) if isinstance(v, Marked) else v)


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Its tensors, in containers too."""
    if isinstance(value, Marked):
        yield from tensors_in(value.value)
    elif isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for v in value:
            yield from tensors_in(v)
    elif isinstance(value, dict):
        for v in value.values():
            yield from tensors_in(v)
