"""Gradients and loss of a step in one flat tensor, summed over micro-batches and ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..programs.compile.strides import is_dense
from .world import World

ALIGN = 16  # elements: kernels load aligned vectors


class Bucket:
    """One message a step in place of one a parameter.

    The sum over micro-batches is taken as it comes (equal to rounding, however they are spread), or
    `ordered`: every micro-batch has a row of its own, all rows travel, and each rank adds them up in
    their order. Then no bit depends on the number of ranks; the message grows by the number of
    micro-batches.

    Args:
        parameters: of one dtype.
        world: the ranks.
        parts: micro-batches of one rank.
        ordered: as above.

    Attributes:
        gradients: of the parameters, views into the sum.
        loss: 0-dim, likewise.
        length: elements of a row.
        wish: filled with 1 by a rank that wants to stop; `stop` is the sum over ranks after a step.
    """

    def __init__(self, parameters: Sequence[Tensor], world: World, parts: int, ordered: bool) -> None:
        dtypes = sorted({str(p.dtype) for p in parameters})
        if len(dtypes) > 1:
            raise ValueError(f"expected parameters of one dtype for several ranks, got {', '.join(dtypes)}")
        self.world, self.ordered = world, ordered
        self._layouts = [(p.shape, p.stride() if is_dense(p) else None) for p in parameters]
        sizes = [-(-p.numel() // ALIGN) * ALIGN for p in parameters]
        first = parameters[0]
        length = self.length = sum(sizes) + 2
        rows = parts if ordered else 1
        self._own = first.new_zeros(rows, length)
        self._all = first.new_zeros(rows * world.size, length) if ordered else self._own
        self._sum = first.new_zeros(length) if ordered else self._own[0]
        self._starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self._numbers = [p.numel() for p in parameters]
        self._rows = [self._views(row) for row in self._own]
        self.gradients = self._views(self._sum)
        self.loss, self.stop = self._sum[-2], self._sum[-1]
        self.wish = first.new_zeros(())
        self._filled = [False] * rows

    def _views(self, row: Tensor) -> list[Tensor]:
        """Views of a row, one for each parameter, with the parameter's strides, as the fused update wants them."""
        views = []
        for start, n, (shape, stride) in zip(self._starts, self._numbers, self._layouts, strict=True):
            part = row[start : start + n]
            views.append(part.view(shape) if stride is None else part.as_strided(shape, stride))
        return views

    def clear(self) -> None:
        """Before the first micro-batch of a step."""
        self._filled = [False] * len(self._own)

    def add(self, part: int, loss: Tensor, gradients: list[Tensor], weight: float) -> None:
        """A micro-batch's sums, times `weight`."""
        row = part if self.ordered else 0
        views, place = self._rows[row], self._own[row, -2]
        if not self._filled[row]:
            torch._foreach_copy_(views, gradients)
            place.copy_(loss)
            if weight != 1.0:
                self._own[row].mul_(weight)
            self._filled[row] = True
        else:
            torch._foreach_add_(views, gradients, alpha=weight)
            place.add_(loss, alpha=weight)

    def reduce(self) -> None:
        """After the last one: sums over all micro-batches of all ranks stand in `gradients` and `loss`."""
        for row, filled in enumerate(self._filled):
            if not filled:
                self._own[row].zero_()
        self._own[:, -1].zero_()
        self._own[0, -1].copy_(self.wish)
        if not self.ordered:
            self.world.sum(self._own[0])
            return
        self.world.gather(self._own, self._all)
        self._sum.copy_(self._all[0])
        for row in self._all[1:]:
            self._sum.add_(row)
