"""A model and a guide that were looked at once, to be run on any chunk of data x samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine.enum_messenger import EnumMessenger
from torch import Tensor

from .checks.in_support import values_known_later
from .checks.measure import Measure
from .checks.support import outside_of_prior
from .declaration import Declaration
from .latents.unequal_totals import UnequalTotals
from .modes import module_mode
from .plates import PARTICLES as PARTICLES
from .plates import Arguments, Calling, ChooseSubsample
from .seeds import seeded
from .sites import Sites, collect, sample_sites, stack_samples
from .undefined import undefined_in


@dataclass(frozen=True)
class Program:
    """A model/guide pair on some data, with what a look at its traces has shown.

    Attributes:
        arguments: the data, and how a subset of it reaches the program.
        declaration: what the model declares.
        max_plate_nesting: depth of its plates; the particle dim is one further left.
        enumerated: whether discrete sites are summed out.
        vectorised: whether it broadcasts over a particle plate (else samples are looped over).
        factors: names of the pair's `pyro.factor` sites.
        guide_factors: those of the guide, which count in ln q.
        full_size: size of the data plate where it stands for more data than are passed (the
            subsampling scale is full_size / len(x)); else None.
        narrower: latents that the guide draws from a smaller set than the prior does, in words: E_q[w] < p(x).
        measure: whether p(x) is a mass or a density.
        random: "model", "guide": which of them draw random numbers that are no sites.
        globals: latents outside of the data plate that are conditioned on: the evidence is ln p(x | globals).
        ignored: observed sites of the guide, which are no part of q.
        unfolded: model and guide without what folds samples into the batch of their networks.
        looped: why samples are run one at a time, where they are.
        takes: whether numbers of tensors are taken into Python (`if z.max() > 3:`, `.item()`) as it runs.
        transformed: observed sites with a density of numbers that the model makes of x, such as ln x.
        beside: whether its guide looks at the data beside a datum: it is run on all of them, but in training.
        measured: what was measured on it once (see `memory`), by name.
    """

    model: Callable[..., Any]
    guide: Callable[..., Any]
    arguments: Arguments
    declaration: Declaration
    max_plate_nesting: int
    enumerated: bool
    vectorised: bool
    factors: tuple[str, ...]
    full_size: int | None
    narrower: tuple[str, ...] = ()
    measure: Measure = field(default_factory=Measure)
    random: tuple[str, ...] = ()
    globals: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    unfolded: tuple[Callable[..., Any], Callable[..., Any]] | None = None
    looped: str | None = None
    takes: bool = False
    guide_factors: tuple[str, ...] = ()
    transformed: tuple[str, ...] = ()
    beside: bool = False
    measured: dict[str, int] = field(init=False, default_factory=dict, compare=False, repr=False)

    @property
    def plate(self) -> str:
        """Name of the data plate."""
        return self.arguments.plate

    @property
    def is_folded(self) -> bool:
        """Whether samples are folded into the batch of its networks, which is exact in eval mode alone."""
        return self.unfolded is not None and self.unfolded[0] is not self.model

    @property
    def takes_slices(self) -> bool:
        """Whether all that it depends on is in slices of its arguments, so that one graph serves every chunk."""
        return self.arguments.calling == "sliced" and not self.arguments.nested and self.full_size is None

    def on_all(self) -> Program:
        """Itself, run on all data at once if its guide looks at the data beside a datum."""
        return self._called("whole")

    def in_parts(self) -> Program:
        """Itself, run on any part of the data, whatever its guide looks at."""
        return self._called("sliced")

    def _called(self, calling: Calling) -> Program:
        if not self.beside or self.arguments.calling == calling:
            return self
        return replace(self, arguments=replace(self.arguments, calling=calling))

    def run(self, indices: Tensor, num_samples: int) -> Sites:
        """Draws `num_samples` from the guide for the data at `indices`; all sites `[K, n]`."""
        if self.vectorised:
            return self._run(indices, num_samples)
        return stack_samples([self._run(indices, None) for _ in range(num_samples)])

    @contextmanager
    def quiet(
        self, seed: int | None = None, stream: str = "", *counters: int, grad: bool = False
    ) -> Iterator[None]:
        """Lets it run in eval mode and without Pyro's checks; with a seed, under noise of its own.

        Args:
            seed: of the noise; None leaves torch's generators as they are.
            stream, counters: tell this noise from other noise of that seed.
            grad: whether gradients are kept.
        """
        with (
            torch.set_grad_enabled(grad),
            module_mode(self.model, self.guide, training=False),
            pyro.validation_enabled(False),
            values_known_later(),
            nullcontext()
            if seed is None
            else seeded(seed, stream, *counters, device=self.arguments.x.device),
        ):
            yield

    @contextmanager
    def on(self, indices: Tensor) -> Iterator[tuple[Any, ...]]:
        """Yields the arguments for the data at `indices`; in the body the plate holds just these.

        A plate of fixed subsample size repeats the last index where there are fewer.
        """
        args = self.arguments
        if args.calling != "indexed":
            whole = args.calling == "whole"
            taken = torch.arange(args.num_data, device=args.x.device) if whole else indices
            # A plate that stands for more data than are passed would draw indices of its own.
            with nullcontext() if self.full_size is None else ChooseSubsample(args.plate, taken):
                yield args.whole() if whole else args.slice(indices)
        else:
            assert args.subsample_size is not None
            pad = args.subsample_size - len(indices)
            padded = torch.cat([indices, indices[-1:].expand(pad)]) if pad else indices
            with ChooseSubsample(args.plate, padded):
                yield args.whole()

    def _run(self, indices: Tensor, num_samples: int | None) -> Sites:
        with self.on(indices) as given:
            traces = self.traces(given, num_samples)
        sites = collect(*traces, plate=self.plate, particles=None if num_samples is None else PARTICLES)
        return _first(sites, len(indices)) if self.arguments.calling == "indexed" else sites

    def traces(self, given: tuple[Any, ...], num_samples: int | None) -> tuple[Any, Any]:
        """(guide trace, model trace replayed against it); with a particle plate unless None."""
        guide, model = self.guide, self.model
        particle_dim = -1 - self.max_plate_nesting
        if num_samples is not None:
            guide = pyro.plate(PARTICLES, num_samples, dim=particle_dim)(guide)
            model = pyro.plate(PARTICLES, num_samples, dim=particle_dim)(model)
        if self.enumerated:
            guide = EnumMessenger(particle_dim - 1)(UnequalTotals()(guide))
            model = EnumMessenger()(UnequalTotals()(model))
        guide_trace = poutine.trace(guide).get_trace(*given)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*given)
        return guide_trace, model_trace


def drawn_outside(program: Program, indices: Tensor) -> list[str]:
    """Latents that the guide draws outside of the model's support, in words."""
    with program.quiet(0, "support"):
        traces = program.run(indices, 64 if program.vectorised else 8).traces
    return [] if traces is None else outside_of_prior(traces[1])


def undefined_laws(program: Program, indices: Tensor) -> list[str]:
    """Sites whose law has parameters beyond their bounds at draws of the guide, in words."""
    with program.quiet(0, "support"):
        traces = program.run(indices, 1024 if program.vectorised else 64).traces
        return (
            [] if traces is None else [word for trace in traces for word in undefined_in(sample_sites(trace))]
        )


def _first(sites: Sites, n: int) -> Sites:
    """The first n data of `sites` (the rest was padding)."""

    def cut(group: dict[str, Tensor]) -> dict[str, Tensor]:
        return {k: v[:, :n] for k, v in group.items()}

    marginal = None if sites.marginal is None else sites.marginal[:, :n]
    return Sites(cut(sites.prior), cut(sites.likelihood), cut(sites.guide), marginal, sites.traces)
