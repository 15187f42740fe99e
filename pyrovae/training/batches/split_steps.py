"""Steps of batches that are divided over ranks and micro-batches."""

from __future__ import annotations

from typing import Any

from ...devices import captures
from ...distributed import Split
from ...distributed.slicing import SplitObjective, look
from ...objectives.compile.compiled import CompiledObjective
from ...programs import module_mode
from ...programs.compile.tracing import UntraceableError
from ...svi.svi import SVI
from ..state.run_state import RunState
from .batches import Batches
from .static_epoch import StaticEpoch


class SplitSteps:
    """Makes the objectives of full and of smaller last batches for a trainer's steps.

    Args:
        svi: with an optimizer of torch.
        batches: of the run.
        split: how each is divided.

    Raises:
        ValueError: for a program that takes no slices of the data.
    """

    def __init__(self, svi: SVI, batches: Batches, split: Split) -> None:
        if not batches.sliced:
            raise ValueError(
                "expected a program that takes a slice of the data as its argument for several ranks or micro-batches, "
                "got one whose plate has a size or a subsample of its own; try plate('data', len(x)), or one rank"
            )
        split.check_batch(batches.batch_size)
        self.svi, self.batches, self.split = svi, batches, split

    def epoch(self, run: RunState, compile: bool) -> StaticEpoch:
        """The steps of an epoch.

        Args:
            run: whose program, parameters and average they are.
            compile: generate code for full batches; else graphs run as they were traced. A smaller last
                batch has generated code on CUDA alone.

        Raises:
            ValueError: for a program that cannot be one graph, or whose batches cannot be divided; one
                of Pyro's optimizers.
        """
        parameters, objective = run.store.unconstrained(), run.objective
        if self.svi.optimizer is None:
            raise ValueError(
                "expected an optimizer of torch for several ranks or micro-batches, got one of pyro.optim, which keeps "
                "a state by parameter; try functools.partial(torch.optim.Adam, lr=1e-3)"
            )

        def make(rows: tuple[Any, ...], generate: bool) -> CompiledObjective:
            with run.store.active(), module_mode(run.model, run.guide, training=True):
                return CompiledObjective(
                    objective,
                    run.model,
                    run.guide,
                    rows,
                    parameters,
                    run.modules,
                    generate,
                    laws=False,
                )

        full = self.batches.rows(0, 0)
        last = self.batches.rows(0, self.batches.per_epoch - 1)
        scaled = run.program.full_size is not None
        try:
            dims = look(make, full, objective, scaled)
            sized = [SplitObjective(make, full, self.split, dims, scaled, compile)]
            if len(last[0]) != len(full[0]):
                generate = compile and captures(run.device)
                sized.append(SplitObjective(make, last, self.split, dims, scaled, generate, sized[0]))
        except UntraceableError as error:
            raise ValueError(
                f"expected a program that is one graph for several ranks or micro-batches, got one that is none: "
                f"{error}; try one rank without accumulation"
            ) from error
        self.bucket = sized[0].bucket
        if self.batches.feed is not None:
            own = {s.size: s.own for s in sized}
            self.batches.feed.own = own.__getitem__
        return StaticEpoch(self.svi, self.batches, sized, run.average, parameters, run.seed)

    def ask_to_stop(self) -> None:
        """Tells the other ranks, with the next step, that this one was interrupted."""
        self.bucket.wish.fill_(1)

    @property
    def stopping(self) -> bool:
        """Whether a rank had asked when the last step was made: the same answer on all of them."""
        return bool(self.bucket.stop > 0)
