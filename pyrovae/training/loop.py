"""The loop around a trainer: best weights, patience, returns after bad steps, checkpoints."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..distributed import World
from .bad_steps import BadStep
from .interrupts import Interrupt, deferred_interrupt
from .logging.history import Row, write_history
from .out_of_memory import memory_for
from .state.checkpoint import Checkpoints, shared_state
from .state.run_state import Weights
from .trainer import Trainer

# Learning rate after a bad step.
SLOWER = 0.5


@dataclass
class Progress:
    """State of a fit beside its trainer's."""

    history: list[Row] = field(default_factory=list)
    timing: list[float] = field(default_factory=list)
    best: float = -math.inf
    best_epoch: int = 0
    best_weights: Weights | None = None
    returns: int = 0
    seconds: float = 0.0


class Loop:
    """Runs a trainer to its end; killed and resumed anywhere, it makes the same run.

    Args:
        trainer: at its start.
        epochs, patience: as in `pv.fit`.
        max_returns: to the last good epoch after bad steps.
        checkpoints: where they are kept, if at all.
        every: epochs from checkpoint to checkpoint.
        every_steps: steps from checkpoint to checkpoint within an epoch.
        arguments: what a run that is resumed must have been started with.
        log: CSV file of the history.
        on_epoch: called with each new row.

    Of several ranks all run their loop, and the first alone has checkpoints, log and `on_epoch`.
    """

    def __init__(
        self,
        trainer: Trainer,
        *,
        epochs: int,
        patience: int | None,
        max_returns: int,
        checkpoints: Checkpoints | None,
        every: int,
        every_steps: int | None,
        arguments: dict[str, Any],
        log: Path | None,
        on_epoch: Callable[[Row], None] | None,
    ) -> None:
        self.trainer, self.epochs, self.patience = trainer, epochs, patience
        self.max_returns, self.checkpoints = max_returns, checkpoints
        self.every, self.every_steps = every, every_steps
        self.arguments, self.log, self.on_epoch = arguments, log, on_epoch
        self.world = World() if trainer.split is None else trainer.split.world
        self.progress = Progress()
        self._good = trainer.state_dict()
        self._interrupt = Interrupt()
        self._last = time.perf_counter()

    def resume(self) -> None:
        """Continues from the newest whole checkpoint, if there is one.

        Raises:
            ValueError: for the checkpoint of another program, other data or other arguments,
                naming the difference.
        """
        state = None
        with self.world.together(), _of_this_version():
            if self.checkpoints is not None:
                state = self.checkpoints.load()
                self._compare({} if state is None else state["arguments"], self.checkpoints.folder)
        state = shared_state(self.world, state)
        if state is None:
            return
        with _of_this_version():
            self.trainer.load_state_dict(state["trainer"])
            self._good = self.trainer.state_dict() if state["good"] is None else state["good"]
            self.progress = Progress(**state["progress"])
        if self.log is not None and self.progress.history:
            write_history(self.log, self.progress.history)

    def _compare(self, found: dict[str, Any], folder: Path) -> None:
        for name in dict.fromkeys([*self.arguments, *found]) if found else ():
            ours, theirs = self.arguments.get(name), found.get(name)
            if ours != theirs:
                raise ValueError(
                    f"expected a checkpoint of the same run in {folder}, got one with {name} = "
                    f"{theirs!r}, here {ours!r}; try the arguments it was started with, or another folder"
                )

    def run(self) -> None:
        """All epochs left.

        Raises:
            BadStep: a FloatingPointError, after as many returns as are allowed; the program then
                has its weights of the last good epoch.
            KeyboardInterrupt: after Ctrl-C, a checkpoint being written first.
            OSError: a checkpoint cannot be written.
        """
        with ExitStack() as stack:
            if self.checkpoints is not None or self.world.size > 1:
                self._interrupt = stack.enter_context(deferred_interrupt())
            self._last = time.perf_counter()
            while not self.done:
                if self._stopping:
                    self._stop()
                try:
                    with memory_for(
                        self.trainer.batch_size, self.trainer.device, self.checkpoints is not None
                    ):
                        row = self.trainer.run_epoch(self._after_step)
                except BadStep as error:
                    self._return(error)
                    continue
                self._record(row)
            if self._interrupt.pending:
                raise self._interrupt.error

    @property
    def _stopping(self) -> bool:
        """After Ctrl-C; of several ranks, between the same two steps on all of them."""
        divided = self.trainer.divided
        if divided is None or self.world.size == 1:
            return self._interrupt.pending
        if self._interrupt.pending:
            divided.ask_to_stop()
        return self.trainer.stopping

    @property
    def done(self) -> bool:
        """Whether all epochs have run, or patience is at its end."""
        epoch, best = self.trainer.epoch, self.progress.best_epoch
        settled = bool(self.progress.history) and self._settled(self.progress.history[-1])
        waited = self.patience is not None and settled and best > 0 and epoch - best >= self.patience
        return epoch >= self.epochs or waited

    def _settled(self, row: Row) -> bool:
        # While beta still changes, the true ELBO favours epochs the schedule has yet to leave.
        return row["beta"] == self.trainer.last_beta(self.epochs - 1)

    def _record(self, row: Row) -> None:
        progress, trainer = self.progress, self.trainer
        progress.history.append(row)
        self._tick()
        progress.timing.append(progress.seconds - sum(progress.timing))
        score = -math.inf if trainer.score is None else row.get(trainer.score, -math.inf)
        if self._settled(row) and score > progress.best:
            progress.best, progress.best_epoch = score, trainer.epoch
            progress.best_weights = trainer.weights(averaged=True)
        self._good = trainer.state_dict()
        if self.done or trainer.epoch % self.every == 0:
            self._save(self._good)
        if self.log is not None:
            write_history(self.log, progress.history)
        if self.on_epoch is not None:
            self.on_epoch(row)

    def _after_step(self) -> None:
        if self._stopping:
            self._stop()
        if self.every_steps is not None and self.trainer.global_step % self.every_steps == 0:
            self._save(self.trainer.state_dict())

    def _stop(self) -> None:
        self._save(self.trainer.state_dict())
        raise self._interrupt.error

    def _tick(self) -> None:
        now = time.perf_counter()
        self.progress.seconds += now - self._last
        self._last = now

    def _save(self, state: dict[str, Any]) -> None:
        if self.checkpoints is None:
            return
        self._tick()
        # In the middle of an epoch its start travels along: a bad step returns there.
        good = None if self.trainer.batch == 0 else self._good
        progress = dict(vars(self.progress))
        self.checkpoints.save(
            {"arguments": self.arguments, "progress": progress, "good": good, "trainer": state}
        )

    def _return(self, error: BadStep) -> None:
        progress, trainer = self.progress, self.trainer
        # The first step would be the same at any learning rate.
        ended = progress.returns >= self.max_returns or error.step == 0
        if not ended:
            try:
                trainer.roll_back(self._good, SLOWER)
            except ValueError:
                ended = True
        if ended:
            if progress.returns:
                error.note = (
                    f", after {progress.returns} returns to a good epoch, each at half the learning rate"
                )
            trainer.load_state_dict(self._good)
            raise error
        progress.returns += 1
        warnings.warn(
            f"{error}. Back to the start of that epoch at {trainer.lr_factor:g} times the learning rate "
            f"({progress.returns} of {self.max_returns} returns)",
            RuntimeWarning,
            stacklevel=4,
        )


@contextmanager
def _of_this_version() -> Iterator[None]:
    """Tells of a checkpoint that is whole, and has not what this version looks for."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise ValueError(
            f"expected the checkpoint of a run of this version, got one of another ({type(error).__name__}: {error}); "
            "try the version it was started with, or start anew with --overwrite"
        ) from error
