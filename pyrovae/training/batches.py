"""Which data a step sees: a function of (seed, epoch, batch) alone."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..programs import Program, derive_seed
from .sources import Source


class Batches:
    """Minibatches in an order that is drawn afresh each epoch.

    Programs that subsample by themselves set their own batch, and get all rows.
    """

    def __init__(self, source: Source, program: Program, batch_size: int, seed: int) -> None:
        if batch_size < 1:
            raise ValueError(f"expected batch_size >= 1, got {batch_size}")
        self.source, self.seed = source, seed
        args = program.arguments
        self.sliced = args.calling == "sliced"
        size = args.subsample_size if args.calling == "indexed" else batch_size
        assert size is not None
        self.batch_size = size
        self.per_epoch = 1 if args.calling == "whole" else math.ceil(args.num_data / size)
        self._epoch: int | None = None

    def indices(self, epoch: int, batch: int) -> Tensor | None:
        """Indices of a batch's data; None where the program draws them itself."""
        if not self.sliced:
            return None
        self._prepare(epoch)
        return self._order[batch * self.batch_size : (batch + 1) * self.batch_size]

    def rows(self, epoch: int, batch: int) -> tuple[Any, ...]:
        """`(x, *context)` of a batch."""
        self._prepare(epoch)
        picked = self.indices(epoch, batch)
        return self._rows if picked is None else tuple(r[picked] for r in self._rows)

    def size(self, epoch: int, batch: int) -> int:
        """Number of data in a batch; all of them where the program draws its own."""
        picked = self.indices(epoch, batch)
        return len(self.whole(epoch)[0]) if picked is None else len(picked)

    def order(self, epoch: int) -> Tensor:
        """Indices of all data, in the order of an epoch."""
        self._prepare(epoch)
        return self._order

    def whole(self, epoch: int) -> tuple[Tensor, ...]:
        """`(x, *context)` of all data in an epoch."""
        self._prepare(epoch)
        return self._rows

    def _prepare(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        self._rows = self.source.epoch(epoch, self.seed)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", epoch))
        first = self._rows[0]
        self._order = torch.randperm(len(first), generator=generator).to(first.device)
        self._epoch = epoch
