"""Steps of a run: eager ones one by one, compiled ones on fixed tensors, both under the same seeds."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

import pyro
import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from ..devices import captures
from ..distributed import Split
from ..objectives import BetaELBO
from ..objectives.compile.agreement import is_due
from ..objectives.compile.compiled import StepObjective
from ..programs import module_mode, reseeding, seeded
from ..programs.checks.finite import not_finite
from .bad_steps import BadStep, fault_of
from .batches.batches import Batches
from .batches.sources import Source
from .batches.split_steps import SplitSteps
from .batches.static_epoch import StaticEpoch
from .optimizers import Rates
from .schedules import Schedule
from .state.run_state import RunState, Weights


class Stepping(RunState):
    """Base of a trainer that makes its steps; schedules are in epochs, and `static` has the compiled ones."""

    source: Source
    batches: Batches
    beta: Schedule
    rates: Rates
    split: Split | None
    divided: SplitSteps | None
    static: StaticEpoch | None
    stopping: bool
    _compared: bool
    _initial: Weights | None

    def _compile(self) -> StaticEpoch | None:
        """Compiles for full batches; on CUDA also for a smaller last one, which else runs eagerly."""
        rows = [self.batches.rows(0, 0)]
        last = self.batches.rows(0, self.batches_per_epoch - 1)
        if captures(self.device) and len(last[0]) != len(rows[0][0]):
            rows.append(last)
        parameters = self.store.unconstrained()
        with module_mode(self.model, self.guide, training=True):
            if not self.svi.prepare(rows[0], parameters, self.modules):
                return None
            more = [self.svi.compile_for(r, parameters, self.modules) for r in rows[1:]]
        # One of Pyro's optimizers keeps a state by parameter; an epoch picks rows of tensors on the device.
        if self.svi.optimizer is None or not self.source.plain:
            return None
        compiled = [c for c in (self.svi.compiled_objective, *more) if c is not None]
        return StaticEpoch(self.svi, self.batches, compiled, self.average, parameters, self.seed)

    @property
    def batches_per_epoch(self) -> int:
        """Steps in an epoch. A program that subsamples by itself sets its own batch."""
        return self.batches.per_epoch

    def step(self) -> float:
        """One gradient step; returns the loss in nats per datum.

        Raises:
            BadStep: a FloatingPointError, for a loss that is NaN, infinite or exploding, naming
                epoch, batch and data.
            ValueError: for a schedule whose value is out of range.
        """
        if self.split is not None and self.static is not None:
            with reseeding(self.device) as reseed:
                self._begin(self.static)
                self._stands(self.static)
                self._static_step(self.static, reseed, look=True)
            return self.losses[-1]
        now = self._now(self.epoch, self.batch)
        if isinstance(self.objective, BetaELBO):
            self.objective.beta = self._beta(now)
        if self.svi.optimizer is not None:
            self.rates.apply(self.svi.optimizer, now, self.lr_factor)
        if self.batch == 0:
            self.losses, self.compiled_steps = [], 0
        self.collect()
        rows = self.batches.next_rows(self.epoch, self.batch)
        self._initial = self.weights() if self.global_step == 0 else None
        try:
            # The first step runs under Pyro's own validation, which costs about a tenth of a step.
            with (
                seeded(self.seed, "step", self.global_step, device=self.device),
                self.store.active(),  # Pyro's optimizers look names up in it
                pyro.validation_enabled(self.global_step == 0),
            ):
                before = self.svi.compiled_steps
                loss: float = self.svi.step(*rows) / (self.program.full_size or len(rows[0]))
                self.compiled_steps += self.svi.compiled_steps - before
        except LinAlgError as error:  # what weights without bounds do to a factorisation
            raise self._bad_step(f"none ({error})") from error
        except ValueError as error:  # of Pyro's validation
            if self.global_step == 0 and bool(torch.isnan(rows[0]).any()):
                raise ValueError(
                    "expected finite data, or a program that leaves NaN out before it computes with it, got NaN in x; "
                    "try x.nan_to_num(0.0), and a mask over what is missing (the gradient of a masked NaN is NaN), or "
                    "pyrovae.data.load(..., missing='ignore') with parts of this library"
                ) from error
            raise
        fault = fault_of(loss, self.peak)
        if fault is not None:
            raise self._bad_step(fault)
        if self.average is not None:
            self.average.update(self.global_step)
        self.losses.append(loss)
        self._count()
        return loss

    def run_steps(self, after_step: Callable[[], None] | None = None) -> None:
        """All steps left in this epoch: compiled ones on fixed tensors, others one by one.

        Args:
            after_step: called after each step but the last.

        Raises:
            BadStep: as `step`; on a GPU up to 256 steps later.
        """
        epoch = self.epoch
        for module in self.modules:
            module.training = True
        with nullcontext(None) if self.static is None else reseeding(self.device) as reseed:
            if self.static is not None:
                self._begin(self.static)
            while True:
                static = self.static
                if (
                    reseed is not None
                    and static is not None
                    and static.serves(self.batch)
                    and self._stands(static)
                ):
                    self._static_step(static, reseed)
                else:
                    self.step()
                if self.epoch > epoch:
                    break
                if after_step is not None:
                    after_step()

    def _count(self) -> None:
        self.global_step += 1
        self.batch += 1
        if self.batch == self.batches_per_epoch:
            self.epoch, self.batch = self.epoch + 1, 0
            self.peak = max(map(abs, self.losses))

    def collect(self, stop: int | None = None) -> None:
        """Reads the losses of this epoch that still wait on the device, of batches before `stop`.

        Raises:
            BadStep: for the first bad one among them.
        """
        known, stop = len(self.losses), self.batch if stop is None else stop
        if self.static is None or known >= stop:
            return
        for batch, total in enumerate(self.static.losses(known, stop), start=known):
            loss = total / (self.program.full_size or self.batches.size(self.epoch, batch))
            fault = fault_of(loss, self.peak)
            if fault is not None:
                raise self._bad_step(fault, batch)
            self.losses.append(loss)

    def forget_compiled(self) -> None:
        """Goes on with eager steps."""
        self.static, self.compiled = None, False

    def _now(self, epoch: int, batch: int) -> float:
        return epoch + batch / self.batches_per_epoch

    def _beta(self, now: float) -> float:
        beta = self.beta(now)
        if not beta >= 0:
            raise ValueError(f"expected beta >= 0, got {beta} at epoch {now:g}")
        return beta

    def _begin(self, static: StaticEpoch) -> None:
        """Schedules of all steps of this epoch, on the device."""
        assert self.svi.optimizer is not None
        rates = []
        for batch in range(self.batches_per_epoch):
            now, step = self._now(self.epoch, batch), self.global_step - self.batch + batch
            beta = self._beta(now) if isinstance(self.objective, BetaELBO) else 1.0
            share = 0.0 if self.average is None else self.average.share(step)
            rates.append([*self.rates.at(self.svi.optimizer, now, self.lr_factor), beta, share])
        if self.batch == 0:
            self.losses, self.compiled_steps = [], 0
        static.begin(self.epoch, self.batch, rates)

    def _stands(self, static: StaticEpoch) -> bool:
        """Whether the compiled step of this batch is still the program's: looked at as `pv.SVI` does.

        Compared with an eager one are steps of this process's first and those that are due by the run's own
        count, so that a resumed run compares the same. Nothing that is compared enters the run.

        Raises:
            ValueError: it is not, and batches are divided, for which there is no eager step.
        """
        objective = static.objective(self.batch)
        why = objective.changed()
        if why is not None:
            self.svi.discard(why)
        elif is_due(self.global_step + 1) or not self._compared:
            self._compare(objective)
            self._compared = True
        if not self.svi.discarded:
            return True
        if self.split is not None:
            raise ValueError(
                f"expected a program that stays what it was compiled as, for several ranks or micro-batches, got one "
                f"that changes: {self.svi.refused}; try one rank without accumulation"
            )
        self.collect()
        self.forget_compiled()
        return False

    def _compare(self, objective: StepObjective) -> None:
        if isinstance(self.objective, BetaELBO):
            self.objective.beta = self._beta(self._now(self.epoch, self.batch))
        rows = self.batches.rows(self.epoch, self.batch)
        for compiled, given in objective.parts(rows):
            with (
                seeded(self.seed, "step", self.global_step, device=self.device),
                self.store.active(),
                pyro.validation_enabled(False),
            ):
                if not self.svi.agrees(compiled, given, {}):
                    return

    def _static_step(self, static: StaticEpoch, reseed: Callable[[int], None], look: bool = False) -> None:
        now, last = self._now(self.epoch, self.batch), self.batch == self.batches_per_epoch - 1
        if (last or not static.fuses) and self.svi.optimizer is not None:
            self.rates.apply(self.svi.optimizer, now, self.lr_factor)
        try:
            static.run(self.batch, self.global_step, reseed)
        except LinAlgError as error:
            raise self._bad_step(f"none ({error})") from error
        if (self.batch + 1) % static.check_every == 0 or last or look:
            self.collect(self.batch + 1)
            self.stopping = self.divided is not None and self.divided.stopping
        self.compiled_steps += int(getattr(static.objective(self.batch), "generated", True))
        self._count()

    def _bad_step(self, found: str, batch: int | None = None) -> BadStep:
        batch = self.batch if batch is None else batch
        indices = self.batches.indices(self.epoch, batch)
        listed = None if indices is None else indices.tolist()
        step = self.global_step + batch - self.batch
        note = f": {self._site_without(indices)}" if step == 0 else ""
        return BadStep(found, self.epoch, batch, step, listed, note)

    def _site_without(self, indices: Tensor | None) -> str:
        """Site without a finite density at the first step."""
        given = self.program.arguments.chunks(2048)[0] if indices is None else indices
        if self._initial is not None:  # an eager step has moved them
            self.load_weights(self._initial)
        with (
            torch.no_grad(),
            pyro.validation_enabled(False),
            seeded(self.seed, "step", 0, device=self.device),
            module_mode(self.model, self.guide, training=True),
            self.program.on(given) as rows,
        ):
            try:
                guide, model = self.program.traces(rows, None)
            except ValueError as error:
                return str(error)
            found = not_finite(model, given) or not_finite(guide, given)
        return found or "each site has a finite density at the initial parameters"
