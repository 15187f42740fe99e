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

from ..distributed import Split, check_in_step
from ..objectives import BetaELBO, check_objective, with_nesting, with_terms
from ..programs import Program, derive_seed, ensure_compile_cache
from ..svi.svi import SVI
from .bad_steps import BadStep
from .batches.batches import Batches
from .batches.sources import Source
from .batches.split_steps import SplitSteps
from .logging.metrics import Metrics, measure
from .optimizers import Adam, Groups, Rates, clipper, with_groups
from .preparing import Prepared
from .schedules import Schedule, as_schedule
from .state.averaging import MovingAverage
from .stepping import Stepping


class Trainer(Stepping):
    """A fit that is advanced one step (or one epoch) at a time.

    Its state is explicit: parameters in a store of its own, the optimizer's state, the epoch
    and the batch within it. Order and noise are functions of (seed, epoch, step), so nothing
    else has to be remembered, and fits whose steps interleave do not touch each other.

    Modules are trained in place, as in PyTorch; two fits of the same module train the same
    weights. For the arguments see `pyrovae.fit`.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> def model(x):
        ...     mean = pyro.param("mean", torch.zeros(()))
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(mean, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(0.5 * x, 0.7))
        >>> trainer = Trainer(model, guide, torch.ones(300), batch_size=100)
        >>> row = trainer.run_epoch()
        >>> trainer.epoch, trainer.global_step
        (1, 3)
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
        if isinstance(objective, BetaELBO) and beta == 1.0:  # its own KL weight is the one of this fit
            beta, objective = objective.beta, objective.base
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
            with_nesting(base, self.program),
            beta=self.beta(0.0),
            free_bits=free_bits,
            beta_varies=callable(beta),
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
        self.svi.checked, self.svi.given = True, self.source.given
        self.rates = Rates(self.lr, made)
        if not isinstance(optim, pyro.optim.PyroOptim):
            self.rates.apply(self.svi.update.torch_optimizer(self.parameters()), 0.0, 1.0)
        self.average = None if ema is None else MovingAverage(self.store.unconstrained, ema)

        self.epoch, self.batch, self.global_step = 0, 0, 0
        self.losses, self.peak, self.lr_factor = [], None, 1.0
        self.split, self.stopping = split, False
        self.compiled_steps = 0  # of this epoch
        self._compared = False
        self._initial = None
        self.divided = None if split is None else SplitSteps(self.svi, self.batches, split)
        if self.divided is not None:
            self.static = self.divided.epoch(self, compile)
            self.compiled = compile
        else:
            self.static = self._compile() if compile else None
            self.compiled = self.svi.compiled_objective is not None

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
        measured: dict[str, float] = world.share_json(self._measured(limit) if world.first else None)
        return row | measured

    def _measured(self, limit: int) -> dict[str, float]:
        report = getattr(self.objective, "report", None)  # means over the epoch's steps
        row: dict[str, float] = {} if report is None else report()
        with nullcontext() if self.average is None else self.average.in_place():
            row |= self.figures(self.program, max_data=limit)
            if self.valid_program is not None:
                row |= {f"valid_{k}": v for k, v in self.figures(self.valid_program).items()}
        return row

    def _check_weights(self) -> None:
        """A loss shows only what the steps before it did to the weights; the last step's is seen here."""
        if not all(torch.stack([p.isfinite().all() for p in self.parameters()]).tolist()):
            last, batch = self.epoch - 1, self.batches_per_epoch - 1
            indices = self.batches.indices(last, batch)
            listed = None if indices is None else indices.tolist()
            raise BadStep("weights that are not", last, batch, self.global_step - 1, listed)

    def figures(self, program: Program, max_data: int | None = None) -> dict[str, float]:
        """Figures of the program on its data to log: the objective's own, where it has any, else `metrics`."""
        own: Callable[..., dict[str, float]] | None = getattr(self.objective, "measure", None)
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
