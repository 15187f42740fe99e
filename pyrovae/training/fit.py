"""`pv.fit`: train a model/guide pair by stochastic variational inference."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pyro.infer.elbo import ELBO as PyroELBO
from torch import Tensor

from ..checking import checked
from ..distributed import Split, World, agree
from ..programs.trained import remember
from ..progress import Progress, shown
from .batches.sources import Source
from .logging.history import Row
from .loop import Loop
from .optimizers import Groups
from .result import Fit
from .schedules import Schedule
from .state.arguments import arguments_of, weights_of
from .state.checkpoint import Checkpoints
from .trainer import Trainer

# Steps from which on compiling pays on a CPU: seconds against milliseconds a step.
LONG = 10_000


@checked
def fit(
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
    epochs: int = 100,
    batch_size: int = 128,
    beta: float | Schedule = 1.0,
    free_bits: float = 0.0,
    patience: int | None = None,
    restore_best: bool = True,
    seed: int = 0,
    plate: str | None = None,
    metric_samples: int = 1,
    compile: bool | Literal["auto"] = "auto",
    max_returns: int = 2,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: int = 1,
    checkpoint_steps: int | None = None,
    keep: int = 2,
    resume: bool = False,
    log: str | os.PathLike[str] | None = None,
    on_epoch: Callable[[Row], None] | None = None,
    progress: Progress = True,
    split: Split | None = None,
    given: Mapping[str, Tensor] | None = None,
) -> Fit:
    """Trains by SVI; the fit has its own parameter store and its own noise.

    Args:
        model, guide: Pyro programs that keep the contract, their modules trained in place.
        data: of `pv.data.load`; or a tensor, or a tuple `(x, *context)`; or a `pv.data.Stream`, where they
            are larger than memory.
        valid: rows to validate on; default: the data set's own.
        objective: one of Pyro's ELBOs; default `Trace_ELBO()`. Refused where it would be
            silently wrong (see `pyrovae.objectives.check_objective`).
        optim: as in `pv.SVI`; default: Adam over all parameters.
        lr: learning rate, or a schedule of the epoch (torch optimizers). Default: that of `optim`,
            or 1e-3 where there is none.
        groups: options of the optimizer by glob of parameter names, as they are in the store (`.` or
            Pyro's `$$$`): `{"prior*": {"lr": 1e-4}}`; the first that fits counts. `lr` may be a schedule.
        clip_norm: largest norm of all gradients together.
        ema: decay of an exponential moving average of the weights, like 0.999: it is what is
            evaluated and returned.
        epochs: passes over the data.
        batch_size: data per step; a program that subsamples by itself sets its own.
        beta: KL weight, or a schedule of the epoch: `Warmup(20)`, `Cyclical(10)`.
        free_bits: nats per latent site below which its KL is not pressed.
        patience: stop after so many epochs without a better validation ELBO.
        restore_best: end with the weights of the best validation ELBO among epochs at the
            final beta (where there are validation data).
        seed: of initial parameters that the program creates, batch order and noise.
        plate: name of the data plate.
        metric_samples: samples per datum in the logged metrics.
        compile: run each step as one compiled graph (see `pv.SVI`). "auto": where the run has at
            least 10,000 steps, so that the seconds of compiling pay.
        max_returns: after a step whose loss is NaN, infinite or exploding the run goes back to the
            end of the last good epoch and continues at half the learning rate, so many times.
        checkpoint: folder of checkpoints. A run that is killed at any moment and resumed is, on a
            CPU, bit for bit the one that was never killed. Ctrl-C writes one, too.
        checkpoint_every: epochs from one to the next.
        checkpoint_steps: steps from one to the next within epochs; default: none there.
        keep: that many of the last ones; each also holds the best weights so far.
        resume: continue from the newest whole one, if there is one.
        log: CSV file of the history, rewritten after each epoch.
        on_epoch: called with each new row.
        progress: True: a bar, where somebody watches; False: none; or a function of (epochs done, epochs).
        split: how each batch is divided over ranks and micro-batches (`pyrovae.distributed.Split`).
            All ranks call `fit` alike; the first alone writes checkpoints and log and calls
            `on_epoch`. The run is, to rounding, that of one process, and a checkpoint of any number
            of ranks is continued by any other.
        given: values of latents outside of the plate, which all data share, by name: what is trained is the ELBO of
            p(x | given), and `Fit.model` is conditioned on them.

    Returns:
        `Fit`, its modules in the mode they came in.

    Raises:
        ValueError: for a pair that breaks the contract, an objective invalid for it, data
            outside the likelihood's support, arguments out of range, or a checkpoint of another
            run, naming the difference.
        FileExistsError: for a folder with checkpoints, without `resume`.
        FloatingPointError: for a loss that is NaN, infinite or exploding, after `max_returns`.
        KeyboardInterrupt: after Ctrl-C.
        OSError: for a checkpoint that cannot be written; the former one is whole.
        pyrovae.distributed.RankLost: another rank has ended, or was not heard of within the timeout.

    Example:
        >>> import pyrovae as pv
        >>> from pyrovae.models.vae import VAE
        >>> with pv.seed(0):
        ...     vae = VAE(
        ...         prior=pv.priors.StandardNormal(2),
        ...         likelihood=pv.likelihoods.Binomial(pv.networks.MLP(2, (16,), 64), 16),
        ...         guide=pv.guides.DiagonalGaussian(pv.networks.MLP(64, (16,)), latent_dim=2),
        ...     )
        >>> fit = pv.fit(vae.model, vae.guide, pv.data.load("digits"), epochs=1, seed=0)
        >>> fit.embed().shape  # of the test split
        torch.Size([360, 2])
    """
    world = World() if split is None else split.world
    if not world.first:
        checkpoint = log = on_epoch = None
    checkpoints = None if checkpoint is None else Checkpoints(checkpoint, keep)
    if resume and checkpoints is None and world.first:
        raise ValueError("expected the folder of checkpoints to resume from, got none; try checkpoint=...")
    with world.together():
        if checkpoints is not None and not resume and checkpoints.files():
            raise FileExistsError(
                f"expected a folder without checkpoints, got {checkpoints.folder}; try resume=True, or another folder"
            )
        trainer = Trainer(
            model,
            guide,
            data,
            valid=valid,
            objective=objective,
            optim=optim,
            lr=lr,
            groups=groups,
            clip_norm=clip_norm,
            ema=ema,
            batch_size=batch_size,
            beta=beta,
            free_bits=free_bits,
            seed=seed,
            plate=plate,
            metric_samples=metric_samples,
            compile=compile is True
            or (
                compile == "auto"
                and getattr(objective, "compiles", True)
                # From sizes alone, so that a rerun decides alike.
                and epochs * math.ceil(Source(data).num_data / max(1, batch_size)) >= LONG
            ),
            split=split,
            given=given,
        )
        if patience is not None and trainer.valid_program is None:
            raise ValueError(f"expected validation data with patience={patience}, got none; try valid=...")
    if patience is not None and trainer.score is None:
        raise ValueError(
            f"expected an objective by which epochs can be compared with patience={patience}, got {trainer.objective}; "
            "try exact=True where ln p(x) can be enumerated"
        )
    # Epochs may grow from one piece of a run to the next, as long as the KL weight they end at is the same.
    arguments: dict[str, Any] = {}
    if checkpoints is not None or world.size > 1:
        final_beta = trainer.last_beta(epochs - 1)
        arguments = arguments_of(trainer, patience=patience, max_returns=max_returns, final_beta=final_beta)
    if split is not None and world.size > 1:
        agree(world, {**arguments, "epochs": epochs, "initial weights": weights_of(trainer), **split.about})
        resume = world.share_json(resume)
    loop = Loop(
        trainer,
        epochs=epochs,
        patience=patience,
        max_returns=max_returns,
        checkpoints=checkpoints,
        every=checkpoint_every,
        every_steps=checkpoint_steps,
        arguments=arguments,
        log=None if log is None else Path(log),
        on_epoch=on_epoch,
    )
    modes = [(m, m.training) for m in trainer.modules]
    try:
        with shown(progress if world.first else None, "epochs") as tell:
            loop.on_epoch = _telling(tell, epochs, on_epoch, notes=progress is True)
            if resume:
                loop.resume()
            loop.run()
    finally:
        for module, mode in modes:
            module.training = mode
    done = loop.progress
    best_epoch = trainer.epoch
    if restore_best and done.best_weights is not None:
        trainer.load_weights(done.best_weights)
        best_epoch = done.best_epoch
    elif trainer.average is not None:
        trainer.load_weights(trainer.weights(averaged=True))
    remember(trainer.store, model, guide)
    return Fit(
        trainer.model,
        trainer.guide,
        trainer.store,
        done.history,
        trainer.modules,
        best_epoch,
        done.timing,
        done.seconds,
        sum(row.get("compiled_share", 0.0) for row in done.history) / max(1, len(done.history)),
        trainer.svi.refused,
        data,
    )


def _telling(
    tell: Callable[..., None] | None, epochs: int, on_epoch: Callable[[Row], None] | None, notes: bool
) -> Callable[[Row], None] | None:
    """Functions called with each row: `on_epoch`, and the progress, with a note of the row or without."""
    if tell is None:
        return on_epoch

    def each(row: Row) -> None:
        keys = [k for k in ("valid_elbo", "elbo", "valid_log_likelihood", "loss") if k in row][:1]
        tell(int(row["epoch"]), epochs, *(f"{k} {row[k]:.3f}" for k in keys if notes))
        if on_epoch is not None:
            on_epoch(row)

    return each
