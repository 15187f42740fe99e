"""A look at a model and a guide on a few data: their plate, their nesting, whether they broadcast."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pyro
import torch
from torch import Tensor

from .arguments.calling import find_calling
from .arguments.marks import Marked
from .arguments.standing import as_it_stands
from .checks.agreement import check_latents, refuse_inner_subsampling
from .checks.contract import check_arguments, data_frame
from .checks.explained import explained
from .checks.first_runs import (
    ROWS,
    RefuseImproper,
    check_laws,
    check_missing,
    check_observed_shapes,
    missing_explained,
    unwritten,
)
from .checks.masked import check_masked, has_masks
from .checks.measure import measure_of
from .checks.narrower import bounds_vary, narrower_latents
from .checks.observed import transformed_sites
from .checks.points import check_points
from .checks.structure import check_structure
from .checks.support import check_kind_of_numbers
from .declaration import declaration_of
from .idioms.adapting import adapt
from .idioms.dtypes import cast, fitting, say
from .inspection import Program
from .modes import module_mode
from .own_memory import OwnMemory
from .particles.apart import refuse_mixed_elements
from .particles.broadcasting import broadcasting
from .seeds import refuse_seeding, seeded
from .sites import is_factor, sample_sites
from .trained import warn_untrained

RANDOM = "it draws random numbers outside of pyro.sample"


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
            differ, NaN in the data; as the `check` that the model declares.
    """
    check_arguments(x, context, missing=True)
    declared = declaration_of(model)
    if declared.check is not None:
        declared.check(x, *(c.value if isinstance(c, Marked) else c for c in context))
    plate = plate or declared.plate or "data"
    with (
        seeded(seed, "inspect", device=x.device),
        torch.no_grad(),
        module_mode(model, guide, training=False),
        OwnMemory(x, context, given),
        ExitStack() as stack,
    ):
        dtype = fitting(model, guide, x, context, plate)
        if dtype is not None:
            say(x, dtype)
            x, context = cast(x, dtype), cast(context, dtype)
        with explained(x, context), missing_explained(x), RefuseImproper():
            pair = adapt(model, guide, x, context, plate, given)
        stack.enter_context(module_mode(pair.model, pair.guide, training=False))
        with explained(x, context), missing_explained(x), RefuseImproper(), unwritten(x, context):
            arguments, guide_trace, prior_trace = find_calling(pair.model, pair.guide, x, context, plate)
        refuse_seeding(seed, "inspect")
        check_laws(guide_trace, prior_trace)
        warn_untrained(model, guide)
        check_structure(guide_trace, prior_trace, plate, declared)
        refuse_inner_subsampling((guide_trace, prior_trace), plate)
        check_observed_shapes(prior_trace)
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
            transformed=transformed_sites(prior_trace, x, context),
        )
        check_missing(program)
        with explained(x, context):
            check_points(program)
        program = as_it_stands(program)
        program = replace(program, unfolded=(program.model, program.guide))
        why = None
        if vectorised is None:
            program, why = (program, RANDOM) if program.random else broadcasting(program)
            vectorised = why is None
            if why is not None and "same device" in why:
                with explained(x, context):
                    raise RuntimeError(why.removeprefix("RuntimeError: "))
        program = replace(program, narrower=_agreement(program))
    if not vectorised:
        if program.enumerated:
            raise ValueError(
                "expected a program that broadcasts over a particle plate at dim "
                f"{-1 - program.max_plate_nesting}, as summing out enumerated sites needs; got one that does not "
                f"({why}); try `...` indexing and negative dims in place of fixed shapes"
            )
        program = replace(program, vectorised=False, looped=why)
    if program.enumerated:
        of_model = {n for n, s in sample_sites(prior_trace) if not s["is_observed"]}
        summed = {s["name"] for s in sites if s["infer"].get("enumerate") == "parallel"}
        drawn = {n for n, s in sample_sites(guide_trace) if s["infer"].get("enumerate") != "parallel"}
        with explained(x, context):
            refuse_mixed_elements(program, sorted((of_model & summed) - drawn))
    if program.random:
        warnings.warn(
            f"the {' and the '.join(program.random)} of this program draws random numbers outside of pyro.sample (as "
            "torch.randn does), or follows what its runs change (as a counter): no density counts that, data and "
            "samples may share it, and samples are run one at a time; try pyro.sample for random numbers, or to hand "
            "them over as pv.per_datum(...)",
            stacklevel=2,
        )
    return program.on_all()


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
