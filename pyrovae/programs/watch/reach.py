"""Python's state that a program can reach."""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn


@dataclass
class Reach:
    """State of a program, as far as it can be reached from some objects.

    Attributes:
        places: (container, keys of interest, name): dicts, lists, sets; `None` for all keys.
        fields: (object, attribute, name): cells and slots.
        tensors: by id.
        arrays: NumPy arrays with their names.
        opaque: iterators, generators of random numbers and files, with their names.
        classes: by the id of their container.
        absent: dicts of objects, with the attributes that their classes have in their place.
        library: ids of the containers of libraries' objects.
        modules: of torch.
        functions: of a user's.
        objects: whose class says what is run.
        wholes: (object, what of it is compared, name).
        sealed: objects that no comparison can watch, with their names.
        large: containers of more elements than are compared, with their names.
        full: more was there than is looked at.
    """

    places: list[tuple[Any, tuple[Any, ...] | None, str]] = field(default_factory=list)
    fields: list[tuple[Any, str, str]] = field(default_factory=list)
    tensors: dict[int, Tensor] = field(default_factory=dict)
    arrays: list[tuple[np.ndarray, str]] = field(default_factory=list)
    opaque: list[tuple[Any, str]] = field(default_factory=list)
    classes: dict[int, type] = field(default_factory=dict)
    library: set[int] = field(default_factory=set)
    absent: list[tuple[dict[str, Any], frozenset[str], str]] = field(default_factory=list)
    modules: list[nn.Module] = field(default_factory=list)
    functions: list[types.FunctionType] = field(default_factory=list)
    objects: list[Any] = field(default_factory=list)
    wholes: list[tuple[Any, Callable[[Any], Any], str]] = field(default_factory=list)
    sealed: list[tuple[Any, str]] = field(default_factory=list)
    large: list[tuple[Any, str]] = field(default_factory=list)
    full: bool = False

    def code(self) -> list[tuple[types.CodeType, dict[str, Any]]]:
        """All code of a user's that was reached, with its globals."""
        found = []
        waiting = [(f.__code__, f.__globals__) for f in self.functions]
        while waiting:
            code, space = waiting.pop()
            found.append((code, space))
            waiting += [(c, space) for c in code.co_consts if isinstance(c, types.CodeType)]
        return found
