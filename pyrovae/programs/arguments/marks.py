"""Context arguments marked as per datum or as shared by all data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from ...checking import as_tensors


@dataclass(frozen=True, eq=False)
class Marked:
    """A context argument with what `per_datum` or `shared` says of it; programs see `value` alone."""

    value: Any
    per_datum: bool


def per_datum(value: Any) -> Marked:
    """Marks context that has one row per datum.

    A tensor (or numpy array) `[N, ...]`, or a tuple, list or dict of such tensors; a packed sequence of N; a list of
    N items, one a datum: sequences of different lengths, labels, numbers.

    Raises:
        TypeError: for a value that has no rows.

    Example:
        >>> import torch
        >>> per_datum(torch.zeros(8, 3)).per_datum
        True
    """
    value = as_tensors(value)
    leaves: list[Any] = []
    change(value, leaves.append)
    tensors = [v for v in leaves if isinstance(v, Tensor)]
    packed = any(isinstance(v, PackedSequence) for v in leaves)
    listed = isinstance(value, list) and len(value) > 0
    if not listed and (not leaves or any(v.dim() == 0 for v in tensors) or not (tensors or packed)):
        raise TypeError(
            f"expected a tensor [N, ...], a tuple, list or dict of them, or a list of N items, got "
            f"{type(value).__name__}"
        )
    return Marked(value, True)


def shared(value: Any) -> Marked:
    """Marks context that all data share, whatever its size (a codebook of N rows): it is passed whole.

    Example:
        >>> import torch
        >>> shared(torch.zeros(8, 3)).per_datum
        False
    """
    return Marked(value, False)


def change(value: Any, leaf: Callable[[Any], Any], items: int | None = None) -> Any:
    """`value` with `leaf` applied to all that is no tuple, list or dict.

    With `items`, a list of so many things, one a datum, is a leaf too.
    """
    if isinstance(value, PackedSequence) or (items is not None and is_items(value, items)):
        return leaf(value)
    if isinstance(value, tuple):
        parts = [change(v, leaf, items) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [change(v, leaf, items) for v in value]
    if isinstance(value, dict):
        return {k: change(v, leaf, items) for k, v in value.items()}
    return leaf(value)


def is_items(value: Any, n: int) -> bool:
    """Whether it is a list of n things that are no tensors of n rows each: sequences, labels, lists of numbers."""
    if not isinstance(value, list) or len(value) != n:
        return False
    if any(isinstance(v, tuple | list | dict | Marked | PackedSequence) for v in value):
        leaves: list[Any] = []
        for v in value:
            change(v, leaves.append)
        return not any(isinstance(v, Tensor | Marked | PackedSequence) for v in leaves)
    return not all(isinstance(v, Tensor) and v.dim() and len(v) == n for v in value)


def num_rows(leaf: Any) -> int | None:
    """Rows of a leaf; None for what has none."""
    if isinstance(leaf, PackedSequence):
        return int(leaf.batch_sizes[0])
    if isinstance(leaf, list):
        return len(leaf)
    return len(leaf) if isinstance(leaf, Tensor) and leaf.dim() else None


def wrong_rows(value: Any, n: int) -> list[str]:
    """Parts of a value per datum that have other than n rows, in words."""
    if isinstance(value, Tensor | PackedSequence):
        shown = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"{num_rows(value)} sequences"
        return [] if num_rows(value) == n else [shown]
    if is_items(value, n) or not isinstance(value, tuple | list | dict):
        return []
    if isinstance(value, list) and next(tensors_in(value), None) is None:  # items, but not one a datum
        return [f"a list of {len(value)}"]
    parts = value.values() if isinstance(value, dict) else value
    return [found for part in parts for found in wrong_rows(part, n)]


def pick_rows(leaf: Any, indices: Tensor) -> Any:
    """The rows of a leaf: of a tensor, a list of items, a packed sequence; all else as it is."""
    if isinstance(leaf, Tensor):
        return leaf[indices.to(leaf.device)] if leaf.dim() else leaf
    if isinstance(leaf, list):
        return [leaf[i] for i in indices.tolist()]
    if isinstance(leaf, PackedSequence):
        padded, lengths = pad_packed_sequence(leaf, batch_first=True)
        lengths = lengths[indices.to(lengths.device)]
        ordered = leaf.sorted_indices is None and bool((lengths.diff() <= 0).all())
        rows = padded[indices.to(padded.device)]
        return pack_padded_sequence(rows, lengths, batch_first=True, enforce_sorted=ordered)
    return leaf


def unmarked(value: Any) -> Any:
    """Arguments without their marks, as a program is given them."""
    return change(value, lambda v: unmarked(v.value) if isinstance(v, Marked) else v)


def tensors_in(value: Any, kind: Any = Tensor) -> Iterator[Any]:
    """Its tensors (or all of another kind), in containers too."""
    if isinstance(value, Marked):
        yield from tensors_in(value.value, kind)
    elif isinstance(value, kind):
        yield value
    elif isinstance(value, tuple | list):
        for v in value:
            yield from tensors_in(v, kind)
    elif isinstance(value, dict):
        for v in value.values():
            yield from tensors_in(v, kind)


def others_in(value: Any) -> str:
    """Key of all that is no tensor in it, equal for equal values: numbers, texts, None, marks, keys."""
    if isinstance(value, Marked):
        return f"{'per datum' if value.per_datum else 'shared'} {others_in(value.value)}"
    if isinstance(value, Tensor):
        return "tensor"
    if isinstance(value, dict):
        return str({k: others_in(v) for k, v in value.items()})
    if isinstance(value, tuple | list):
        return f"{type(value).__name__} {[others_in(v) for v in value]}"
    return repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
