"""One fit, step by step, with all of its state in one place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import pyro
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.elbo import ELBO as PyroELBO
from torch import Tensor

from ..devices import captures
from ..distributed import Split, check_in_step
from ..objectives import BetaELBO, check_objective, with_terms
from ..objectives.compile.agreement import is_due
from ..objectives.compile.compiled import StepObjective
from ..programs import Program, buffers_of, derive_seed, ensure_compile_cache, module_mode, reseeding, seeded
from ..programs.checks.finite import not_finite
from ..svi.svi import SVI
from .bad_steps import BadStep, fault_of
from .batches.batches import Batches
from .batches.sources import Source
from .batches.split_steps import SplitSteps
from .batches.static_epoch import StaticEpoch
from .logging.metrics import Metrics, measure
from .optimizers import Adam, Groups, Rates, clipper, with_groups
from .preparing import Prepared
from .schedules import Schedule, as_schedule
from .state.averaging import MovingAverage
from .state.trainer_state import restore, slowed, state_of

Weights = dict[str, dict[str, Tensor]]


class Trainer:
    """A fit that is advanced one step (or one epoch) at a time.

    Its state is explicit: parameters in a store of its own, the optimizer's state, the epoch
    and the batch within it. Order and noise are functions of (seed, epoch, step), so nothing
    else has to be remembered, and fits whose steps interleave do not touch each other.

    Modules are trained in place, as in PyTorch; two fits of the same module train the same
    weights. For the arguments see `pyrovae.fit`.
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any],
        data: Any,
        *,
        valid: Any = None,
        objective: PyroELBO | None = None,
        optim: Any = None,
        lr: float | Schedule | None = None,
        groups: Groups | None = None,
        clip_norm: float | None = None,
        ema: float | None = None,
        batch_size: int = 128,
        beta: float | Schedule = 1.0,
        free_bits: float = 0.0,
        seed: int = 0,
        plate: str | None = None,
        metric_samples: int = 1,
        compile: bool = False,
        split: Split | None = None,
        given: Mapping[str, Tensor] | None = None,
    ) -> None:
        derive_seed(seed, "check")
        ensure_compile_cache()
        self.seed, self.batch_size, self.metric_samples = seed, batch_size, metric_samples
        self.beta = as_schedule(beta)
        if lr is not None and isinstance(optim, pyro.optim.PyroOptim):
            raise ValueError(f"expected lr=None with a pyro.optim optimizer, which has its own, got {lr!r}")
        clip = clipper(clip_norm)
        self.source = Source(data, valid)
        self.device = self.source.train[0].device
        self.given = dict(given or {})
        prepared = Prepared(model, guide, self.source, seed=seed, plate=plate, given=given)
        self.store, self.modules = prepared.store, prepared.modules
        self.model, self.guide = prepared.model, prepared.guide
        self.program, self.valid_program = prepared.program, prepared.valid_program
        self.batches = Batches(self.source, self.program, batch_size, seed)
        if split is not None and not self.source.plain:
            raise ValueError(
                "expected data whose context is tensors with one row per datum for several ranks or micro-batches, got "
                "other context; try one rank, or functools.partial for what all data share"
            )

        base = objective if objective is not None else Trace_ELBO()
        check_objective(base, self.program)
        self.objective = with_terms(
            base, beta=self.beta(0.0), free_bits=free_bits, beta_varies=callable(beta)
        )
        prepared.check_trainable()
        made = with_groups(Adam if optim is None else optim, self.store.unconstrained, groups)
        # A given optimizer keeps its own learning rate unless one is asked for.
        self.lr = as_schedule(1e-3 if lr is None else lr) if optim is None or lr is not None else None
        # compile=False: SVI would go over to compiled steps by a count of its own, and a resumed run
        # would differ from one that was never interrupted. Here the first step decides for all.
        self.svi = SVI(
            self.program.model, self.program.guide, made, self.objective, compile=False, before_step=clip
        )
        self.svi.checked = True
        self.rates = Rates(self.lr, made)
        if not isinstance(optim, pyro.optim.PyroOptim):
            self.rates.apply(self.svi.update.torch_optimizer(self.parameters()), 0.0, 1.0)
        self.average = None if ema is None else MovingAverage(self.store.unconstrained, ema)

        self.epoch, self.batch, self.global_step = 0, 0, 0
        self.losses: list[float] = []
        self.peak: float | None = None
        self.lr_factor = 1.0
        self.split, self.stopping = split, False
        self.compiled_steps = 0  # of this epoch
        self._compared = False
        self._initial: Weights | None = None
        self.divided = None if split is None else SplitSteps(self.svi, self.batches, split)
        if self.divided is not None:
            self.static: StaticEpoch | None = self.divided.epoch(self, compile)
            self.compiled = compile
        else:
            self.static = self._compile() if compile else None
            self.compiled = self.svi.compiled_objective is not None

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
                loss = self.svi.step(*rows) / (self.program.full_size or len(rows[0]))
                self.compiled_steps += self.svi.compiled_steps - before
        except torch.linalg.LinAlgError as error:  # what weights without bounds do to a factorisation
            raise self._bad_step(f"none ({error})") from error
        fault = fault_of(loss, self.peak)
        if fault is not None:
            raise self._bad_step(fault)
        if self.average is not None:
            self.average.update(self.global_step)
        self.losses.append(loss)
        self._count()
        return loss

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
            loss = total / self._data_in(batch)
            fault = fault_of(loss, self.peak)
            if fault is not None:
                raise self._bad_step(fault, batch)
            self.losses.append(loss)

    def _data_in(self, batch: int) -> int:
        return self.program.full_size or self.batches.size(self.epoch, batch)

    def _beta(self, now: float) -> float:
        beta = self.beta(now)
        if not beta >= 0:
            raise ValueError(f"expected beta >= 0, got {beta} at epoch {now:g}")
        return beta

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

    def _now(self, epoch: int, batch: int) -> float:
        return epoch + batch / self.batches_per_epoch

    def last_beta(self, epoch: int) -> float:
        """The KL weight of an epoch's last step."""
        return self.beta(self._now(epoch, self.batches_per_epoch - 1))

    def run_epoch(self, after_step: Callable[[], None] | None = None) -> dict[str, float]:
        """All steps left in this epoch; returns the row that is logged.

        True ELBO (beta = 1), reconstruction, KL and active units on the training data (as many
        of them as there are validation data, at most 2048) and on the validation data; of the
        averaged weights where weights are averaged. An objective with figures of its own (`measure`) has
        those in their place.

        Args:
            after_step: called after each step but the last.
        """
        epoch = self.epoch
        self.run_steps(after_step)
        self._check_weights()
        sizes = [self.batches.size(epoch, batch) for batch in range(len(self.losses))]
        row: dict[str, float] = {
            "epoch": self.epoch,
            "step": self.global_step,
            # The last batch may be a short one: a mean over data, not over batches.
            "loss": sum(n * loss for n, loss in zip(sizes, self.losses, strict=True)) / sum(sizes),
            "beta": self.last_beta(epoch),
            "lr": math.nan if self.svi.optimizer is None else float(self.svi.optimizer.param_groups[0]["lr"]),
            "compiled_share": self.compiled_steps / self.batches_per_epoch,
        }
        limit = min(2048, self.valid_program.arguments.num_data) if self.valid_program else 2048
        if self.split is None:
            return row | self._measured(limit)
        world = self.split.world
        check_in_step(world, self.parameters(), f"after epoch {epoch + 1}")
        return row | world.share_json(self._measured(limit) if world.first else None)

    def _measured(self, limit: int) -> dict[str, float]:
        report = getattr(self.objective, "report", None)  # means over the epoch's steps
        row: dict[str, float] = {} if report is None else report()
        with nullcontext() if self.average is None else self.average.in_place():
            row |= self.figures(self.program, max_data=limit)
            if self.valid_program is not None:
                row |= {f"valid_{k}": v for k, v in self.figures(self.valid_program).items()}
        return row

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
        self.static, self.compiled = None, False
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
        except torch.linalg.LinAlgError as error:
            raise self._bad_step(f"none ({error})") from error
        if (self.batch + 1) % static.check_every == 0 or last or look:
            self.collect(self.batch + 1)
            self.stopping = self.divided is not None and self.divided.stopping
        self.compiled_steps += int(getattr(static.objective(self.batch), "generated", True))
        self._count()

    def _check_weights(self) -> None:
        """A loss shows only what the steps before it did to the weights; the last step's is seen here."""
        if not all(torch.stack([p.isfinite().all() for p in self.parameters()]).tolist()):
            last, batch = self.epoch - 1, self.batches_per_epoch - 1
            indices = self.batches.indices(last, batch)
            listed = None if indices is None else indices.tolist()
            raise BadStep("weights that are not", last, batch, self.global_step - 1, listed)

    def figures(self, program: Program, max_data: int | None = None) -> dict[str, float]:
        """Figures of the program on its data to log: the objective's own, where it has any, else `metrics`."""
        own = getattr(self.objective, "measure", None)
        if own is not None:
            return own(program, seed=self.seed, max_data=max_data)
        return self.metrics(program, max_data).row()

    @property
    def score(self) -> str | None:
        """The figure (on validation data) that is the larger the better the epoch; None: there is none."""
        name = getattr(self.objective, "score", "elbo")
        return name if name is None else f"valid_{name}"

    def metrics(self, program: Program, max_data: int | None = None) -> Metrics:
        """ELBO terms under noise that is the same every epoch, so that epochs compare."""
        return measure(program, num_samples=self.metric_samples, seed=self.seed, max_data=max_data)

    def weights(self, averaged: bool = False) -> Weights:
        """Copies of all that makes the program what it is: parameters, and buffers of its modules.

        With `averaged`, the averaged parameters in their place, where weights are averaged.
        """
        with self.average.in_place() if averaged and self.average is not None else nullcontext():
            return {
                "parameters": {k: v.clone() for k, v in self.store.state_dict().items()},
                "buffers": {k: v.clone() for k, v in buffers_of(self.modules).items()},
            }

    def load_weights(self, weights: Weights) -> None:
        """Puts `weights()` back.

        Raises:
            ValueError: for another architecture; the program is then as it was.
        """
        own, given = buffers_of(self.modules), weights["buffers"]
        if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in given.items()}:
            raise ValueError(f"expected the {len(own)} buffers of this architecture, got {len(given)} others")
        self.store.load_state_dict(weights["parameters"])
        with torch.no_grad():
            for name, value in given.items():
                own[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """All that a continued run needs, as copies: tensors and plain numbers."""
        return state_of(self)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from `state_dict()`, for a trainer built with the same arguments.

        Raises:
            ValueError: for another seed, architecture, optimizer or objective.
        """
        restore(self, state)

    def roll_back(self, state: dict[str, Any], share: float) -> None:
        """Goes back to `state` (of this run), at a share of the learning rate of now.

        Raises:
            ValueError: for one of Pyro's optimizers before its first step, whose rate is out of reach.
        """
        restore(self, slowed(self, state, share))

    def parameters(self) -> list[Tensor]:
        """Unconstrained leaves, in order of registration."""
        return list(dict.fromkeys(self.store.unconstrained().values()))
