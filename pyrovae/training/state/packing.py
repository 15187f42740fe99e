"""Nested state as plain JSON and a flat table of tensors, and back: no pickle."""

from __future__ import annotations

from typing import Any

from torch import Tensor

Tensors = dict[str, Tensor]


def pack(value: Any, name: str = "state") -> tuple[Any, Tensors]:
    """Splits nested dicts, lists and tuples into JSON that refers to tensors, and those tensors.

    Keeps the order of dicts, integer keys and the difference between tuples and lists.

    Raises:
        TypeError: naming what is neither a container, a tensor, a number, a string nor None.
    """
    tensors: Tensors = {}

    def visit(item: Any, where: str) -> Any:
        if isinstance(item, Tensor):
            tensors[where] = item
            return {"tensor": where}
        if isinstance(item, dict):
            wrong = [k for k in item if type(k) not in (str, int)]
            if wrong:
                raise TypeError(f"expected strings or integers as keys of {where}, got {wrong[0]!r}")
            return {"dict": [[k, visit(v, f"{where}/{k}")] for k, v in item.items()]}
        if isinstance(item, list | tuple):
            kind = "list" if isinstance(item, list) else "tuple"
            return {kind: [visit(v, f"{where}/{i}") for i, v in enumerate(item)]}
        if item is None or isinstance(item, bool | int | float | str):
            return item
        raise TypeError(
            f"expected tensors, numbers, strings and containers of them in a checkpoint, got "
            f"{type(item).__name__} at {where}"
        )

    return visit(value, name), tensors


def unpack(skeleton: Any, tensors: Tensors) -> Any:
    """The inverse of `pack`.

    Raises:
        KeyError, ValueError: for what `pack` did not make.
    """
    if not isinstance(skeleton, dict):
        return skeleton
    ((kind, content),) = skeleton.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {k: unpack(v, tensors) for k, v in content}
    if kind in ("list", "tuple"):
        items = [unpack(v, tensors) for v in content]
        return items if kind == "list" else tuple(items)
    raise ValueError(f"expected tensor, dict, list or tuple, got {kind!r}")
