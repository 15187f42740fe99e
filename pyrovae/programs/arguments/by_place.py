"""Whether a program reads anything by the place of data in their plate, from a run on one of them again and again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FEW = 29, 23, 31  # data: numbers that few layers and time axes have
_COPIES = (
    "detach",
    "alias",
    "clone",
    "_to_copy",
    "lift_fresh",
    "copy_",
    "view",
    "_unsafe_view",
    "unsqueeze",
    "expand",
)
_WRITES = "copy_", "fill_", "zero_"
# What makes rows of what is no row of the data.
_PICKS = (
    "slice",
    "index",
    "index_select",
    "gather",
    "narrow",
    "take",
    "stack",
    "cat",
    "embedding",
)


class ByPlace(TorchDispatchMode):
    """Watches a run on n times one datum: `found` tells whether it uses n numbers that differ, or come from elsewhere.

    Such are the plate's indices, a range of n numbers, and n rows of a table; not n times the same number, nor what is
    made of the data or of draws. A layer or an axis of that very size is taken for one.

    Args:
        n: data.
        rows: tensors with a row for each: arguments, draws.
    """

    def __init__(self, n: int, rows: Iterable[Tensor]) -> None:
        super().__init__()
        self.n, self.found = n, False
        self.lifted: list[Tensor] = []
        # Held, as an id is one of a tensor that lives.
        self._rows = {id(t): t for t in rows}
        self._places: dict[int, Tensor] = {}
        self._made: dict[int, Tensor] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch imports its compiler, for seconds, at the first operator

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs `func`, and notes what its result is made of."""
        name, drawn = func.overloadpacket.__name__, torch.Tag.nondeterministic_seeded in func.tags
        # What is written over was nothing before, as memory that is not yet filled.
        written = name in _WRITES or (drawn and name.endswith("_"))
        given = [t for t in tree_leaves((args[written:], kwargs)) if isinstance(t, Tensor)]
        if name == "lift_fresh":  # made here, of Python's numbers
            self._made.update((id(t), t) for t in given)
            self.lifted += [t.select(t.shape.index(self.n), 0) for t in given if self.n in t.shape]
        # Their numbers may have been written since they were made.
        self._places.update((id(t), t) for t in given if id(t) in self._made and _varies(t, self.n))
        out = func(*args, **(kwargs or {}))
        of_rows = drawn or any(id(t) in self._rows for t in given)
        places = [t for t in given if id(t) in self._places]
        outside = [t for t in given if not any(id(t) in k for k in (self._rows, self._places, self._made))]
        if places and self._picks_each_its_own(name, args):
            places = []
        self.found |= bool(places) and name not in _COPIES
        self.found |= any(self.n in t.shape for t in outside) and name not in _COPIES
        # Of n times the same number nothing is picked, as of values of a class that are listed for all data.
        picks = name in _PICKS and not any(self.n in t.shape for t in given if id(t) in self._made)
        for made in tree_leaves(out):
            if not isinstance(made, Tensor):
                continue
            kind = self._made
            if of_rows:
                kind = self._rows
            elif self.n in made.shape and (places or picks or any(self.n in t.shape for t in outside)):
                kind = self._places
                self.found |= picks and not places
            if not any(id(made) in k for k in (self._rows, self._places)):
                kind[id(made)] = made
        return out

    def _picks_each_its_own(self, name: str, args: tuple[Any, ...]) -> bool:
        """Whether places pick of rows the row at each place, as `x[i]` and `logits[arange(n), y]` do.

        Or go where the rows say, as the inverse of an order by length does, which packed sequences ask for.
        """
        if name in ("scatter", "scatter_"):
            return id(args[2]) in self._rows
        if name not in ("index", "index_select") or id(args[0]) not in self._rows:
            return False
        picks = enumerate(args[1]) if name == "index" else [(args[1] % args[0].dim(), args[2])]
        own = torch.arange(self.n, device=args[0].device)
        return all(
            args[0].size(dim) == self.n and pick.numel() == self.n and bool((pick.flatten() == own).all())
            for dim, pick in picks
            if id(pick) in self._places
        )


def _varies(value: Tensor, n: int) -> bool:
    return any(
        size == n and bool((value != value.narrow(dim, 0, 1)).any()) for dim, size in enumerate(value.shape)
    )
