"""Results of many chunks, gathered as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

from torch import Tensor

from .estimator import PerDatum

_FIELDS = ("log_evidence", "variance", "bias", "ess", "khat")


class Collected:
    """Results of chunks, gathered in tensors that are allocated once.

    A few small tensors kept for each chunk lie between the large ones that come and go, and keep the allocator
    from taking their places again: of a model with many outputs, memory grew by megabytes a datum.

    Args:
        sizes: numbers of data of the chunks.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.ends = list(accumulate(sizes))
        self.sizes = sizes
        self.results: dict[str, PerDatum] = {}

    def put(self, chunk: int, parts: dict[str, PerDatum]) -> None:
        """Takes the results of the chunk at this place, by estimator."""
        end = self.ends[chunk]
        rows = slice(end - self.sizes[chunk], end)
        for name, part in parts.items():
            if name not in self.results:
                self.results[name] = _each(part, lambda t: t.new_zeros((self.ends[-1], *t.shape[1:])))
            for kept, tensor in zip(_tensors(self.results[name]), _tensors(part), strict=True):
                kept[rows] = tensor

    def whole(self) -> dict[str, PerDatum]:
        """Results of all chunks, in their order."""
        return self.results


def _each(part: PerDatum, make: Callable[[Tensor], Tensor]) -> PerDatum:
    """The same with other tensors; numbers and text as they are."""

    def of(value: Any) -> Any:
        return make(value) if isinstance(value, Tensor) and value.dim() else value

    fields = {name: of(getattr(part, name)) for name in _FIELDS}
    curve = {k: of(v) for k, v in part.curve.items()}
    return replace(part, **fields, curve=curve, details={k: of(v) for k, v in part.details.items()})


def _tensors(part: PerDatum) -> Iterator[Tensor]:
    """All tensors of n data, in one order."""
    values = [getattr(part, name) for name in _FIELDS] + [*part.curve.values(), *part.details.values()]
    return (v for v in values if isinstance(v, Tensor) and v.dim())
