"""Choice of the data that a step sees: a function of (seed, epoch, batch) alone."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from ...programs import Program, derive_seed
from .feeding import Feed
from .sources import Source

DEFAULT = 128  # of pv.fit


class Batches:
    """Minibatches in an order that is drawn afresh each epoch.

    Programs that subsample by themselves set their own batch, and get all rows.
    """

    def __init__(self, source: Source, program: Program, batch_size: int, seed: int) -> None:
        if batch_size < 1:
            raise ValueError(f"expected batch_size >= 1, got {batch_size}")
        self.source, self.seed = source, seed
        args = self._arguments = program.arguments
        self.sliced = args.calling == "sliced"
        size = args.subsample_size if args.calling == "indexed" else batch_size
        assert size is not None
        taken = source.num_data if args.calling == "whole" else size
        if not self.sliced and batch_size not in (DEFAULT, taken):
            warnings.warn(
                f"batch_size={batch_size} has no part in this fit: the program's plate {args.plate!r} takes {taken} of "
                f"the {source.num_data} data at a time; try plate({args.plate!r}, len(x)), which takes any, and rows "
                "of tables as arguments (model(x, table)) in place of table[i]",
                stacklevel=4,
            )
        self.batch_size = size
        self.num_data = source.num_data
        if source.stream is not None and not self.sliced:
            raise ValueError(
                "expected a program that takes a slice of the data as its argument for streamed data, got one whose "
                "plate has a size or a subsample of its own; try plate('data', len(x))"
            )
        self.per_epoch = 1 if args.calling == "whole" else math.ceil(self.num_data / size)
        self.feed = None if source.stream is None else Feed(source.stream, self._picked, self.per_epoch)
        self._orders: dict[int, Tensor] = {}
        self._epoch: int | None = None

    def indices(self, epoch: int, batch: int) -> Tensor | None:
        """Indices of a batch's data; None where the program draws them itself."""
        if not self.sliced:
            return None
        return self._picked(epoch, batch)

    def _picked(self, epoch: int, batch: int) -> Tensor:
        return self.order(epoch)[batch * self.batch_size : (batch + 1) * self.batch_size]

    def rows(self, epoch: int, batch: int) -> tuple[Any, ...]:
        """`(x, *context)` of a batch."""
        self._prepare(epoch)
        picked = self.indices(epoch, batch)
        if self.source.stream is not None and picked is not None:
            return (*self.source.stream.read(picked.tolist()), *self.source.stream.beside(picked))
        if self.source.plain:
            return self._rows if picked is None else tuple(r[picked] for r in self._rows)
        return self._arguments.whole() if picked is None else self._arguments.slice(picked)

    def next_rows(self, epoch: int, batch: int) -> tuple[Any, ...]:
        """The same in the course of a run, where streamed rows are read ahead."""
        return self.rows(epoch, batch) if self.feed is None else self.feed.rows(epoch, batch)

    def size(self, epoch: int, batch: int) -> int:
        """Number of data in a batch; all of them where the program draws its own."""
        picked = self.indices(epoch, batch)
        return len(self.whole(epoch)[0]) if picked is None else len(picked)

    def order(self, epoch: int) -> Tensor:
        """Indices of all data, in the order of an epoch."""
        if epoch not in self._orders:
            if len(self._orders) > (self.feed is not None):  # rows are read ahead, of the next epoch too
                del self._orders[max(self._orders, key=lambda e: abs(e - epoch))]
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
            order = torch.randperm(self.num_data, generator=generator, device="cpu")
            self._orders[epoch] = order if self.feed is not None else order.to(self.source.train[0].device)
        return self._orders[epoch]

    def whole(self, epoch: int) -> tuple[Tensor, ...]:
        """`(x, *context)` of all data in an epoch."""
        self._prepare(epoch)
        return self._rows

    def _prepare(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        self._rows = self.source.epoch(epoch, self.seed)
        self._epoch = epoch
