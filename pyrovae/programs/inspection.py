"""A model and a guide, looked at once and then run on any chunk of data x samples."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.poutine.enum_messenger import EnumMessenger
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ..checking import explained
from .arguments.calling import find_calling
from .arguments.marks import unmarked
from .arguments.standing import as_it_stands
from .checks.agreement import check_latents, refuse_inner_subsampling
from .checks.contract import (
    base_of,
    check_arguments,
    check_kind_of_numbers,
    data_frame,
    not_finite_data,
    outside_of_prior,
)
from .checks.masked import check_masked, has_masks
from .checks.measure import Measure, measure_of
from .checks.narrower import bounds_vary, narrower_latents
from .checks.structure import check_structure
from .declaration import Declaration, declaration_of
from .idioms.adapting import adapt
from .idioms.dtypes import cast, fitting, say
from .idioms.folding import calls_of, folded
from .modes import module_mode
from .particles.alone import AloneError, agree
from .plates import PARTICLES as PARTICLES
from .plates import Arguments, ChooseSubsample
from .seeds import seeded
from .sites import Sites, collect, is_factor, sample_sites, stack_samples, unscaled_log_prob
from .trained import warn_untrained
from .watch.undisturbed import NumbersTaken

ROWS = 1024  # data run at once where all are looked at


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
        if args.calling == "sliced":
            # A plate that stands for more data than are passed would draw indices of its own.
            with nullcontext() if self.full_size is None else ChooseSubsample(args.plate, indices):
                yield args.slice(indices)
        elif args.calling == "whole":
            yield args.whole()
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
            guide = EnumMessenger(particle_dim - 1)(guide)
            model = EnumMessenger()(model)
        guide_trace = poutine.trace(guide).get_trace(*given)
        model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*given)
        return guide_trace, model_trace


def inspect_program(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    plate: str | None = None,
    vectorised: bool | None = None,
    seed: int = 0,
    given: Mapping[str, Any] | None = None,
) -> Program:
    """Looks at a program on a few data: its plate, its nesting, whether it broadcasts.

    Runs under its own random state (of `seed`), in eval mode and without gradients. Parameters
    that the program creates with `pyro.param` come to life here. `given` are values of latents outside of the
    data plate, by name.

    Raises:
        ValueError: where the pair breaks the contract: no data plate, latents outside of it or
            missing from the guide, guide sites the model does not know, event shapes that
            differ, NaN in the data.
    """
    check_arguments(x, context, missing=True)
    declared = declaration_of(model)
    plate = plate or declared.plate or "data"
    with (
        seeded(seed, "inspect", device=x.device),
        torch.no_grad(),
        module_mode(model, guide, training=False),
        ExitStack() as stack,
    ):
        dtype = fitting(model, guide, x, context, plate)
        if dtype is not None:
            say(x, dtype)
            x, context = cast(x, dtype), cast(context, dtype)
        with explained(x, context), _missing_explained(x), RefuseImproper():
            pair = adapt(model, guide, x, context, plate, given)
        stack.enter_context(module_mode(pair.model, pair.guide, training=False))
        with explained(x, context), _missing_explained(x), RefuseImproper(), _unwritten(x, context):
            arguments, guide_trace, prior_trace = find_calling(pair.model, pair.guide, x, context, plate)
        warn_untrained(model, guide)
        check_structure(guide_trace, prior_trace, plate, declared)
        refuse_inner_subsampling((guide_trace, prior_trace), plate)
        _check_observed_shapes(prior_trace)
        check_kind_of_numbers(prior_trace)
        sites = [s for t in (guide_trace, prior_trace) for _, s in sample_sites(t)]
        frame = data_frame(prior_trace, plate)
        program = Program(
            model=pair.model,
            guide=pair.guide,
            globals=pair.globals,
            ignored=pair.ignored,
            arguments=arguments,
            declaration=declared,
            max_plate_nesting=max(-f.dim for s in sites for f in s["cond_indep_stack"] if f.vectorized),
            enumerated=any(s["infer"].get("enumerate") == "parallel" and not s["is_observed"] for s in sites),
            vectorised=True,
            factors=tuple(n for t in (prior_trace, guide_trace) for n, s in sample_sites(t) if is_factor(s)),
            guide_factors=tuple(n for n, s in sample_sites(guide_trace) if is_factor(s)),
            full_size=frame.full_size if frame.full_size != frame.size else None,
            measure=measure_of(prior_trace, declared),
        )
        check_missing(program)
        program = as_it_stands(program)
        program = replace(program, unfolded=(program.model, program.guide))
        why = None
        if vectorised is None:
            program, why = (program, RANDOM) if program.random else _broadcasting(program)
            vectorised = why is None
        program = replace(program, narrower=_agreement(program))
    if not vectorised:
        if program.enumerated:
            raise ValueError(
                "expected a program that broadcasts over a particle plate at dim "
                f"{-1 - program.max_plate_nesting}, as summing out enumerated sites needs; got one that "
                "does not; try `...` indexing and negative dims in place of fixed shapes"
            )
        program = replace(program, vectorised=False, looped=why)
    if program.random:
        warnings.warn(
            f"the {' and the '.join(program.random)} of this program draws random numbers outside of pyro.sample (as "
            "torch.randn does): no density counts them, data and samples may share them, and samples are run one at a "
            "time; try to draw them by pyro.sample, or to hand them over as pv.per_datum(...)",
            stacklevel=2,
        )
    return program


class RefuseImproper(poutine.messenger.Messenger):
    """Refuses a prior that is no density, before it is asked for a draw."""

    def _pyro_sample(self, msg: Any) -> None:
        if msg["value"] is None and isinstance(base_of(msg["fn"]), dist.ImproperUniform):
            raise ValueError(
                f"expected a prior with a density, got ImproperUniform at {msg['name']!r}, whose mass is infinite: "
                "p(x) is then known up to a factor alone; try a wide law, such as dist.Normal(0.0, 10.0)"
            )


def _check_observed_shapes(trace: Any) -> None:
    """Refuses data of another width than the likelihood's, and what broadcasts to more than the plates hold."""
    for name, site in sample_sites(trace):
        value, fn = site["value"], site["fn"]
        if is_factor(site) or not isinstance(value, Tensor):
            continue
        wanted = fn.batch_shape + fn.event_shape
        try:
            shape = torch.broadcast_shapes(wanted, value.shape)
        except RuntimeError:
            shape = None
        event = value.shape[max(0, value.dim() - fn.event_dim) :]
        # A number that stands for a whole event is a constant of the author's; one a datum is not.
        if shape is None or (value.dim() > fn.event_dim and event != fn.event_shape):
            raise ValueError(
                f"expected data of the shape of the model's site {name!r}, {tuple(wanted)} of the data it was run"
                f" on, got {tuple(value.shape)}"
            )
        batch = shape[: len(shape) - fn.event_dim]
        plates = {f.dim for f in site["cond_indep_stack"] if f.vectorized}
        loose = [i - len(batch) for i, size in enumerate(batch) if size > 1 and i - len(batch) not in plates]
        if loose:
            what = f"values {tuple(value.shape)} under a law {tuple(wanted)}"
            hint = "x of the law's own shape (x[:, 0], x.squeeze(-1)), or .to_event(1) on the law"
            if plates and max(plates) < max(
                loose
            ):  # a plate further left than where the laws have their rows
                hint = "a plate without dim=, which then is the last dim of the law's batch"
            raise ValueError(
                f"expected one density for each place of the plates at site {name!r}, got {tuple(batch)} of them "
                f"({what}, run on {_sizes(site)}); try {hint}"
            )


def _sizes(site: Any) -> str:
    return (
        ", ".join(f"{f.name!r} of {f.size}" for f in site["cond_indep_stack"] if f.vectorized) or "no plate"
    )


@contextmanager
def _unwritten(x: Tensor, context: tuple[Any, ...]) -> Iterator[None]:
    """Refuses a program that writes to its arguments: each run would find other data than the one before."""
    tensors = [v for v in tree_leaves((x, unmarked(context))) if isinstance(v, Tensor)]
    before = [v._version for v in tensors]
    yield
    if before != [v._version for v in tensors]:
        raise ValueError(
            "expected a program that leaves x and its context as they are, got one that writes to them in place (as "
            "x /= 2 does): each run finds other data than the one before, and x is changed by now; try a tensor of "
            "its own (x = x / 2)"
        )


@contextmanager
def _missing_explained(x: Tensor) -> Iterator[None]:
    """Says of a failure on data with NaN that these are the reason."""
    try:
        yield
    except ValueError as error:
        if x.is_floating_point() and x.isnan().any() and "invalid values" in str(error):
            raise not_finite_data(x, ", on which the program fails") from error
        raise


def check_missing(program: Program) -> None:
    """Refuses NaN in x that reaches a density: a program has to mask it, in model and guide.

    Raises:
        ValueError: naming the first site with such a density.
    """
    x = program.arguments.x
    if not x.is_floating_point() or not x.isnan().any():
        return
    with pyro.validation_enabled(False):
        for indices in program.arguments.chunks(ROWS):
            with program.on(indices) as given:
                traces = program.traces(given, None)
            for source, trace in zip(("guide", "model"), traces, strict=True):
                for name, site in sample_sites(trace):
                    if bool(unscaled_log_prob(site).isnan().any()):
                        raise not_finite_data(x, f", which the {source} does not mask at {name!r}")


def _agreement(program: Program) -> tuple[str, ...]:
    """Holds guide against model, latent by latent; returns those that the guide draws too narrowly.

    On two data, and on all where masks or bounds may differ from one to the next.
    """
    narrower: dict[str, str] = {}
    with pyro.validation_enabled(False):  # draws outside of the prior's support have an error of their own
        for rows in (2, ROWS):
            for indices in program.arguments.chunks(rows)[: 1 if rows == 2 else None]:
                with program.on(indices) as given:
                    traces = program.traces(given, None)
                    check_latents(*traces, program.plate)
                    check_masked(program, given, traces)
                narrower = narrower_latents(*traces) | narrower
            if not has_masks(*traces) and not bounds_vary(*traces):
                break
    return tuple(narrower.values())


def _broadcasting(program: Program) -> tuple[Program, str | None]:
    """The program in a form that broadcasts over samples, or as it is with the reason why it does not.

    A vectorised run has to give each sample the log-weights that it has when run alone. An exception is not the only
    sign: a reshape can mix particles with data in silence, so the numbers are compared. Pyro's validation is off: a
    guide that draws outside of the prior's support has no density there, which says nothing of how it broadcasts.
    """
    with pyro.validation_enabled(False):
        taken: list[Any] = []
        why = _fault(program, taken)
        program = replace(program, takes=bool(taken))
        if why is None:
            return program, None
        args = program.arguments
        if args.calling == "sliced" and args.num_data > 1:
            few = (2, 3) if args.num_data > 2 else (1, 2)

            def run(n: int) -> None:
                with program.on(torch.arange(n, device=args.x.device)) as given:
                    program.traces(given, None)

            try:
                calls = calls_of(run, few)
            except Exception:
                calls = {}
            changed = replace(program, model=folded(program.model, calls), guide=folded(program.guide, calls))
            if calls and _fault(changed) is None:
                return changed, None
    if why == OTHER_NUMBERS:
        warnings.warn(
            f"this program gives {why} when samples are vectorised over a particle plate; "
            "samples must be run one at a time (slower). Use negative dims and `...` indexing to vectorise",
            stacklevel=3,
        )
    return program, why


OTHER_NUMBERS = "other numbers"
RANDOM = "it draws random numbers outside of pyro.sample"


def drawn_outside(program: Program, indices: Tensor) -> list[str]:
    """Latents that the guide draws outside of the model's support, in words."""
    with program.quiet(0, "support"):
        traces = program.run(indices, 64 if program.vectorised else 8).traces
    return [] if traces is None else outside_of_prior(traces[1])


def _fault(program: Program, taken: list[Any] | None = None) -> str | None:
    """Why a program does not broadcast; None if it does."""
    args = program.arguments
    indices = args.chunks(2)[0]
    try:
        with NumbersTaken((taken if taken is not None else []).append):
            vector = program._run(indices, 3)
        vector.log_weights()
    except Exception as error:
        return _in_words(error)
    try:
        return None if agree(program, indices, vector, range(3)) else OTHER_NUMBERS
    except AloneError as error:
        assert isinstance(error.__cause__, Exception)
        return _in_words(error.__cause__)


def _in_words(error: Exception) -> str:
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text[:120]}"


def _first(sites: Sites, n: int) -> Sites:
    """The first n data of `sites` (the rest was padding)."""

    def cut(group: dict[str, Tensor]) -> dict[str, Tensor]:
        return {k: v[:, :n] for k, v in group.items()}

    marginal = None if sites.marginal is None else sites.marginal[:, :n]
    return Sites(cut(sites.prior), cut(sites.likelihood), cut(sites.guide), marginal, sites.traces)
