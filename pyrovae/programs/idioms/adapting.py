"""Pyro's own idioms brought to one form: a plate with a size, and no sites outside of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor

from ..checks.explained import explained
from ..declaration import declaration_of
from ..handlers.substitute import Substitute
from ..latents.supports import base_of
from ..modes import with_modules
from ..parameters import scratch
from ..plates import Arguments, ChooseSubsample, alone
from ..sites import sample_sites
from .auto_guides import plain_guide
from .cached_draws import modes_of_transforms
from .conditioning import check_given, conditioned, given_to, outside, without
from .plate_sizes import is_sizeless, sized


@dataclass(frozen=True)
class Adapted:
    """A pair as it is run.

    Attributes:
        model, guide: the given ones, or the given ones in handlers.
        globals: names of conditioned latents outside of the data plate; their densities are left out.
        ignored: observed sites of the guide that the model observes too: they are no part of q.
    """

    model: Callable[..., Any]
    guide: Callable[..., Any]
    globals: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def adapt(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    context: tuple[Any, ...],
    plate: str,
    given: Mapping[str, Any] | None = None,
) -> Adapted:
    """Looks at a pair on few data (on all, where it runs on no less) and puts it into what its idioms take.

    A pair that fails here, or has nothing of the kind, is returned as it is.

    Raises:
        ValueError, TypeError: for `given` that are no latents outside of the plate.
    """
    whole = Arguments(x, context, plate, "whole").whole()
    guide = plain_guide(guide, whole, plate)
    model = conditioned_on(given, model, (x, *context), plate)
    try:
        with scratch(model, guide):
            args, (q, p), again = _look(model, guide, x, context, plate)
            known = {}
            if any(s["is_observed"] for s in outside(p, plate).values()):
                known = conditioned(p, again()[1], plate, args)
    except (
        Exception
    ):  # a program fails in any way its author's code can fail: where it is run in earnest, it says so
        return Adapted(model, guide)
    inside = {n for n, s in sample_sites(q) if any(f.name == plate for f in s["cond_indep_stack"])}
    own = [n for n, _ in sample_sites(q) if n in known and n not in inside]  # a guide may draw globals alone
    if own:
        guide = given_to(guide, {n: known[n] for n in own})
        own += _spare(guide, args, q, plate)
        guide = without(guide, own)
    if known:
        model = without(model, known)
    observed = {n for n, s in sample_sites(p) if s["is_observed"]}
    ignored = [n for n, s in sample_sites(q) if s["is_observed"] and n in observed and n not in known]
    if ignored:
        guide = without(guide, ignored)
    if is_sizeless(p, plate):
        model = sized(model, plate)
    if is_sizeless(q, plate):
        guide = sized(guide, plate)
    modes = [modes_of_transforms(trace) for trace in (p, q)]
    model, guide = (with_modules(f, m) if m else f for f, m in zip((model, guide), modes, strict=True))
    return Adapted(model, guide, tuple(known), tuple(ignored))


def conditioned_on(
    given: Mapping[str, Any] | None,
    model: Callable[..., Any],
    args: tuple[Any, ...],
    plate: str | None,
) -> Callable[..., Any]:
    """The model with latents outside of the data plate observed at the values `given`.

    Args:
        given: values by name; None or none: the model is returned as it is.
        model: its model.
        args: `(x, *context)`.
        plate: the data plate; None: the one that the model declares.

    Raises:
        ValueError, TypeError: for what are no latents outside of the plate.
    """
    if not given:
        return model
    if not args:
        raise ValueError("expected data x beside given, got none; try an example x of one row or more")
    plate = plate or declaration_of(model).plate or "data"
    x, *context = args
    with torch.no_grad(), scratch(model), explained(x, context):
        check_given(_look(model, _nothing, x, tuple(context), plate)[1][1], plate, given)
    return given_to(model, given)


def _nothing(*args: Any) -> None:
    pass


def _spare(guide: Any, args: tuple[Any, ...], trace: Any, plate: str) -> list[str]:
    """Auxiliary draws outside of the plate that no latent inside of it is computed from.

    Weights with such a draw in neither numerator nor denominator average to p(x), whatever else depends on it.
    """
    spare = [n for n, s in outside(trace, plate).items() if s["infer"].get("is_auxiliary")]
    if not spare:
        return []
    inside = {n: s for n, s in sample_sites(trace) if n not in outside(trace, plate) and not s["is_observed"]}
    points = [n for n, s in inside.items() if isinstance(base_of(s["fn"]), dist.Delta)]
    fixed = Substitute({n: s["value"] for n, s in inside.items() if n not in points})
    with ChooseSubsample(plate, None):
        again: Any = poutine.trace(fixed(guide)).get_trace(*args)
    same = all(torch.equal(again.nodes[n]["value"], inside[n]["value"]) for n in points)
    return spare if same else []


def _look(model: Any, guide: Any, x: Tensor, context: tuple[Any, ...], plate: str) -> Any:
    """Arguments, the traces of both, and a way to those of other data."""
    arguments = Arguments(x, context, plate, "sliced")
    every = torch.arange(len(x), device=x.device)
    rows = every[:2]
    with pyro.validation_enabled(False):
        try:
            args = arguments.slice(rows)
            traces = alone(model, guide, args, plate)
        except Exception:
            args, rows = arguments.whole(), every
            traces = alone(model, guide, args, plate)

    def again() -> tuple[Any, Any]:
        with pyro.validation_enabled(False):
            return alone(model, guide, arguments.slice(every.flip(0)[: len(rows)]), plate)

    return args, traces, again
