"""One fit, step by step, with all of its state in one place."""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import Any

import pyro
import torch
from pyro.infer import Trace_ELBO
from pyro.infer.elbo import ELBO as PyroELBO
from torch import Tensor

from ..objectives import BetaELBO, check_objective, with_terms
from ..programs import (
    ParameterStore,
    Program,
    buffers_of,
    check_support,
    derive_seed,
    inspect_program,
    module_mode,
    seeded,
    store_of,
)
from ..svi import SVI
from .metrics import Metrics, measure
from .schedules import Schedule, as_schedule
from .sources import Source

Adam = functools.partial(torch.optim.Adam, eps=1e-7)


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
        batch_size: int = 128,
        beta: float | Schedule = 1.0,
        free_bits: float = 0.0,
        seed: int = 0,
        plate: str | None = None,
        metric_samples: int = 1,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"expected batch_size >= 1, got {batch_size}")
        derive_seed(seed, "check")
        self.source = Source(data, valid)
        self.store = _common_store(model, guide)
        self.model, self.guide = self.store.bind(model), self.store.bind(guide)
        self.seed, self.batch_size = seed, batch_size
        self.beta = as_schedule(beta)
        if lr is not None and isinstance(optim, pyro.optim.PyroOptim):
            raise ValueError(f"expected lr=None with a pyro.optim optimizer, which has its own, got {lr!r}")
        # A given optimizer keeps its own learning rate unless one is asked for.
        self.lr = as_schedule(1e-3 if lr is None else lr) if optim is None or lr is not None else None
        self.metric_samples = metric_samples
        self.epoch, self.batch, self.global_step = 0, 0, 0
        self.device = self.source.train[0].device

        # Parameters come to life in the first run; under the fit's seed, so that it repeats.
        with seeded(seed, "initialise", device=self.device), self._open() as modules:
            self.program = inspect_program(
                self.model, self.guide, *self.source.train, plate=plate, seed=derive_seed(seed, "initialise")
            )
            self._check_support(self.program)
        self.valid_program: Program | None = None
        if self.source.valid is not None:
            with seeded(seed, "initialise", device=self.device), self._open():
                self.valid_program = inspect_program(
                    self.model,
                    self.guide,
                    *self.source.valid,
                    plate=plate,
                    vectorised=self.program.vectorised,
                )
                self._check_support(self.valid_program)
        base = objective if objective is not None else Trace_ELBO()
        check_objective(base, self.program)
        varies = callable(beta)
        self.objective = with_terms(base, beta=self.beta(0.0), free_bits=free_bits, beta_varies=varies)
        self.svi = SVI(self.model, self.guide, Adam if optim is None else optim, self.objective)
        if not isinstance(optim, pyro.optim.PyroOptim):
            self.svi.torch_optimizer(self.parameters())
        self.modules = modules

    @contextmanager
    def _open(self):  # type: ignore[no-untyped-def]
        with ExitStack() as stack:
            stack.enter_context(self.store.active())
            yield stack.enter_context(module_mode(self.model, self.guide, training=False))

    @staticmethod
    def _check_support(program: Program) -> None:
        args = program.arguments
        with torch.no_grad(), pyro.validation_enabled(False):
            for indices in args.chunks(2048):
                with program.on(indices) as given:
                    check_support(program.traces(given, None)[1])

    @property
    def batches_per_epoch(self) -> int:
        """Steps in an epoch. A program that subsamples by itself sets its own batch."""
        args = self.program.arguments
        if args.calling == "whole":
            return 1
        size = args.subsample_size if args.calling == "indexed" else self.batch_size
        assert size is not None
        return math.ceil(args.num_data / size)

    def step(self) -> float:
        """One gradient step; returns the loss in nats per datum.

        Raises:
            FloatingPointError: for a loss that is NaN or infinite, naming epoch and batch.
        """
        now = self._now(self.epoch, self.batch)
        if isinstance(self.objective, BetaELBO):
            self.objective.beta = self.beta(now)
        if self.svi.optimizer is not None and self.lr is not None:
            for group in self.svi.optimizer.param_groups:
                group["lr"] = self.lr(now)
        rows = self._rows()
        # The first step runs under Pyro's own validation, which costs about a tenth of a step.
        with (
            seeded(self.seed, "step", self.global_step, device=self.device),
            self.store.active(),  # Pyro's optimizers look names up in it
            pyro.validation_enabled(self.global_step == 0),
        ):
            loss = self.svi.step(*rows)
        per_datum = loss / (self.program.full_size or len(rows[0]))
        if not math.isfinite(per_datum):
            raise FloatingPointError(
                f"expected a finite loss, got {per_datum} in epoch {self.epoch}, batch {self.batch} (step "
                f"{self.global_step}); try a lower learning rate or a KL warm-up"
            )
        self.global_step += 1
        self.batch += 1
        if self.batch == self.batches_per_epoch:
            self.epoch, self.batch = self.epoch + 1, 0
        return per_datum

    def _now(self, epoch: int, batch: int) -> float:
        return epoch + batch / self.batches_per_epoch

    def last_beta(self, epoch: int) -> float:
        """The KL weight of an epoch's last step."""
        return self.beta(self._now(epoch, self.batches_per_epoch - 1))

    def _rows(self) -> tuple[Any, ...]:
        if self.batch == 0 or not hasattr(self, "_epoch_rows"):
            self._epoch_rows = self.source.epoch(self.epoch, self.seed)
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", self.epoch))
            self._order = torch.randperm(len(self._epoch_rows[0]), generator=generator).to(self.device)
        if self.program.arguments.calling != "sliced":
            return self._epoch_rows
        picked = self._order[self.batch * self.batch_size : (self.batch + 1) * self.batch_size]
        return tuple(r[picked] for r in self._epoch_rows)

    def run_epoch(self) -> dict[str, float]:
        """All steps left in this epoch; returns the row that is logged.

        True ELBO (beta = 1), reconstruction, KL and active units on the training data (as many
        of them as there are validation data, at most 2048) and on the validation data.
        """
        started = time.perf_counter()
        epoch = self.epoch
        for module in self.modules:
            module.training = True
        losses = []
        while self.epoch == epoch:
            losses.append(self.step())
        row: dict[str, float] = {
            "epoch": epoch + 1,
            "step": self.global_step,
            "loss": sum(losses) / len(losses),
            "beta": self.last_beta(epoch),
            "lr": math.nan if self.svi.optimizer is None else self.svi.optimizer.param_groups[0]["lr"],
        }
        limit = min(2048, self.valid_program.arguments.num_data) if self.valid_program else 2048
        row |= self.metrics(self.program, max_data=limit).row()
        if self.valid_program is not None:
            row |= self.metrics(self.valid_program).row("valid_")
        row["seconds"] = time.perf_counter() - started
        return row

    def metrics(self, program: Program, max_data: int | None = None) -> Metrics:
        """ELBO terms under noise that is the same every epoch, so that epochs compare."""
        return measure(program, num_samples=self.metric_samples, seed=self.seed, max_data=max_data)

    def weights(self) -> dict[str, dict[str, Tensor]]:
        """Copies of all that makes the program what it is: parameters, and buffers of its modules."""
        return {
            "parameters": {k: v.clone() for k, v in self.store.state_dict().items()},
            "buffers": {k: v.clone() for k, v in buffers_of(self.modules).items()},
        }

    def load_weights(self, weights: dict[str, dict[str, Tensor]]) -> None:
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
        optimizer = self.svi.optimizer
        with self.store.active():
            state = self.svi.optim.get_state() if optimizer is None else optimizer.state_dict()
        return {
            **self.weights(),
            "optimizer": copy.deepcopy(state),
            "epoch": self.epoch,
            "batch": self.batch,
            "global_step": self.global_step,
            "seed": self.seed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from `state_dict()`, for a trainer built with the same arguments.

        Raises:
            ValueError: for another seed or architecture.
        """
        if state["seed"] != self.seed:
            raise ValueError(f"expected the state of a run with seed {self.seed}, got seed {state['seed']}")
        self.load_weights(state)
        given = copy.deepcopy(state["optimizer"])
        if self.svi.optimizer is not None:
            self.svi.optimizer.load_state_dict(given)
        else:  # Pyro's optimizers take a state up where they meet its parameter first
            self.svi.optim.optim_objs.clear()
            self.svi.optim.set_state(given)
        self.epoch, self.batch = state["epoch"], state["batch"]
        self.global_step = state["global_step"]
        self.__dict__.pop("_epoch_rows", None)

    def parameters(self) -> list[Tensor]:
        """Unconstrained leaves, in order of registration."""
        return list(dict.fromkeys(self.store.unconstrained().values()))


def _common_store(model: Callable[..., Any], guide: Callable[..., Any]) -> ParameterStore:
    """The store the programs are bound to already, or a new one."""
    bound = [s for s in (store_of(model), store_of(guide)) if s is not None]
    if not bound:
        return ParameterStore()
    if any(s is not bound[0] for s in bound):
        raise ValueError("expected model and guide bound to one parameter store, got two")
    return bound[0]
