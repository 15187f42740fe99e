"""Compiled steps over an epoch, on tensors at fixed places: nothing is read back between two checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...objectives.compile.compiled import StepObjective
from ...programs import derive_seed
from ...svi.cuda_graph import Captured
from ...svi.static_step import StaticStep, rates_of
from ...svi.svi import SVI
from ..state.averaging import MovingAverage
from .batches import Batches

# Steps from one look at the losses to the next. On a CPU a look is free; a GPU has to be waited for.
CHECK_EVERY = {"cpu": 1}
ELSEWHERE = 256


class StaticEpoch:
    """The full batches of an epoch, one compiled step each.

    On the device stay: the data, their order, a cursor, one row of rates (learning rates, KL
    weight, share of the moving average) per step, and one loss per step. A step picks its rows by
    the cursor; the host seeds the generator and launches. On CUDA the step is one graph. Streamed data
    do not stay: the rows of each step are put in their place before it.

    Args:
        svi: with an optimizer of torch.
        batches: of the run.
        compiled: for each size of batch that is compiled (the last one of an epoch is smaller). Where it
            has `own` rows of a batch (`pyrovae.distributed`), a step picks those.
        average: updated after each step, where weights are averaged.
        parameters: unconstrained leaves by name.
        seed: of the noise: the same as an eager step's.
    """

    def __init__(
        self,
        svi: SVI,
        batches: Batches,
        compiled: Sequence[StepObjective],
        average: MovingAverage | None,
        parameters: dict[str, Tensor],
        seed: int,
    ) -> None:
        self.batches, self.average, self.seed = batches, average, seed
        rows = batches.whole(0)
        self.device = rows[0].device
        self.check_every = CHECK_EVERY.get(self.device.type, ELSEWHERE)
        self._own = [False] * len(rows)  # whether a tensor of the epoch's data may be written to
        self._rows = list(rows)
        self._streamed = batches.feed is not None
        if batches.feed is not None:
            self._rows = list(batches.rows(0, 0))
        self._order = torch.arange(0 if self._streamed else len(rows[0]), device=self.device)
        self._cursor = torch.zeros(1, dtype=torch.long, device=self.device)
        optimizer = svi.update.torch_optimizer(parameters.values())
        self._now = rates_of(len(optimizer.param_groups) + 2, self.device)[None]
        self._rates = self._now.new_zeros(batches.per_epoch, self._now.shape[1])
        self._steps = [self._make(svi, c) for c in compiled]
        self._by_size = {s.size: s for s in reversed(self._steps)}
        self._losses = self._steps[0].step.loss.new_zeros(batches.per_epoch)
        self._parameters = parameters
        self._epoch = 0
        self._at = 0  # the cursor, as far as the host knows

    def _make(self, svi: SVI, compiled: StepObjective) -> _Sized:
        size = compiled.key[0][0][0] if self.batches.sliced else len(self._rows[0])
        own = getattr(compiled, "own", slice(None))
        step = svi.static_step(compiled, tuple(r[:size][own] for r in self._rows), self._now[0, :-2])
        sized = _Sized(size, own, step)
        sized.run = Captured(lambda: self._body(sized), self.device, self._fixed, capture=step.update.fuses)
        return sized

    @property
    def refused(self) -> str | None:
        """Why a step is no CUDA graph, where that was tried and failed."""
        return next((s.run.refused for s in self._steps if s.run is not None and s.run.refused), None)

    def serves(self, batch: int) -> bool:
        """Whether a batch is of a size that is compiled."""
        return self._sized(batch) is not None

    def _sized(self, batch: int) -> _Sized | None:
        if not self.batches.sliced:
            return self._steps[0]
        size = min(self.batches.batch_size, self.batches.num_data - batch * self.batches.batch_size)
        return self._by_size.get(size)

    def begin(self, epoch: int, batch: int, rates: Sequence[Sequence[float]]) -> None:
        """Puts an epoch's data, order and rates (`[steps][groups + 2]`) in place, at a batch of it."""
        self._epoch = epoch
        if not self._streamed:
            self._place(epoch)
        self._rates.copy_(torch.tensor(rates, dtype=self._rates.dtype, device="cpu"))
        self._seek(batch)

    def _place(self, epoch: int) -> None:
        for i, new in enumerate(self.batches.whole(epoch)):
            if new is self._rows[i]:
                continue
            if self._own[i]:
                self._rows[i].copy_(new)
            else:  # the first may be the user's own tensor
                self._rows[i], self._own[i] = new, True
        self._order.copy_(self.batches.order(epoch))

    def _seek(self, batch: int) -> None:
        self._cursor.fill_(batch)
        self._at = batch

    @property
    def fuses(self) -> bool:
        """Whether rates are read on the device; else the optimizer takes them from its groups."""
        return self._steps[0].step.update.fuses

    def run(self, batch: int, global_step: int, reseed: Callable[[int], None]) -> None:
        """The step of a batch; its loss waits on the device."""
        sized = self._sized(batch)
        assert sized is not None and sized.run is not None
        if batch != self._at:  # another one ran elsewhere in between
            self._seek(batch)
        if self._streamed:
            rows = self.batches.next_rows(self._epoch, batch)
            for place, new in zip(sized.step.args, rows, strict=True):
                place.copy_(new, non_blocking=True)
        reseed(derive_seed(self.seed, "step", global_step))
        sized.run()
        self._at += 1

    def objective(self, batch: int) -> StepObjective:
        """The compiled loss of a batch of this size."""
        sized = self._sized(batch)
        assert sized is not None
        return sized.step.compiled

    def losses(self, start: int, stop: int) -> list[float]:
        """Losses of some steps of this epoch, in nats per batch; waits for them."""
        return self._losses[start:stop].tolist()

    @torch.no_grad()
    def _body(self, sized: _Sized) -> None:
        step = sized.step
        torch.index_select(self._rates, 0, self._cursor, out=self._now)
        if step.compiled.beta is not None:
            step.compiled.beta.copy_(self._now[0, -2])
        if self.batches.sliced and not self._streamed:
            picked = self._picked(sized)[sized.own]
            for place, rows in zip(step.args, self._rows, strict=True):
                torch.index_select(rows, 0, picked, out=place)
        elif not self._streamed:  # else they are in their place
            for place, rows in zip(step.args, self._rows, strict=True):
                place.copy_(rows)
        step()
        if self.average is not None:
            averages = self.average.values
            now = [self._parameters[k].detach() for k in averages]
            shares = [self._now[0, -1].to(p.dtype) for p in now]
            torch._foreach_lerp_(list(averages.values()), now, shares)
        self._losses.index_copy_(0, self._cursor, step.loss.view(1))
        self._cursor.add_(1)

    def _picked(self, sized: _Sized) -> Tensor:
        size = self.batches.batch_size
        if sized.size < size:  # the last batch of an epoch
            return self._order[-sized.size :]
        full = len(self._order) // size
        return self._order[: full * size].view(full, size).index_select(0, self._cursor)[0]

    def _fixed(self) -> list[Any]:
        averages = () if self.average is None else self.average.values.values()
        return [*self._steps[0].step.fixed(), *self._rows, *averages]


class _Sized:
    """A step for batches of one size, and which of their rows it takes."""

    def __init__(self, size: int, own: slice, step: StaticStep) -> None:
        self.size, self.own, self.step = size, own, step
        self.run: Captured | None = None
