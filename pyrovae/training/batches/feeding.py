"""Batches of streamed data in the order of a run, read ahead from wherever the run is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from ...data.streaming import Stream


class Feed:
    """The batches of a stream, one after the other over all epochs; anew where a run goes back.

    Args:
        stream: of the rows.
        indices: rows of a batch, by epoch and number.
        per_epoch: batches in an epoch.
        own: which rows of a batch of a given size are this rank's.
    """

    def __init__(
        self,
        stream: Stream,
        indices: Callable[[int, int], Tensor],
        per_epoch: int,
        own: Callable[[int], slice] = lambda size: slice(size),
    ) -> None:
        self.stream, self.indices, self.per_epoch, self.own = stream, indices, per_epoch, own
        self._at: tuple[int, int] | None = None
        self._rows: Iterator[tuple[Tensor, ...]] = iter(())

    def rows(self, epoch: int, batch: int) -> tuple[Any, ...]:
        """This rank's `(x, *context)` of a batch, on the stream's device."""
        if self._at != (epoch, batch):
            self._rows = self.stream.batches(lambda: self._order(epoch, batch))
        rows = next(self._rows)
        self._at = (epoch, batch + 1) if batch + 1 < self.per_epoch else (epoch + 1, 0)
        return (*rows, *self.stream.beside(self._own(epoch, batch)))

    def _order(self, epoch: int, batch: int) -> Iterator[list[int]]:
        for later in itertools.count(epoch):
            for number in range(batch if later == epoch else 0, self.per_epoch):
                yield self._own(later, number).tolist()

    def _own(self, epoch: int, batch: int) -> Tensor:
        picked = self.indices(epoch, batch)
        return picked[self.own(len(picked))]
