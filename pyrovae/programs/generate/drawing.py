"""Runs of a model that draw what it observes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from pyro.poutine.uncondition_messenger import UnconditionMessenger
from torch import Tensor

from ..checks.contract import refuse_undrawable
from ..checks.measure import is_computed
from ..declaration import declaration_of
from ..idioms.conditioning import outside
from ..sites import is_factor, sample_sites
from .changed import is_changed
from .generated import Generated
from .running import rows_first, trace_of, trace_on_any_rows


class _Unobserved(UnconditionMessenger):
    """Draws what is observed, but for sites that are `known`."""

    def __init__(self, known: Collection[str]) -> None:
        super().__init__()
        self.known = known

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] not in self.known:
            if msg["is_observed"] and not is_factor(msg):
                refuse_undrawable(msg["fn"], msg["name"])
            super()._pyro_sample(msg)


def unobserved(
    model: Callable[..., Any], args: tuple[Any, ...], plate: str | None = None
) -> Callable[..., Any]:
    """The model with its data to be drawn; latents outside of the data plate that are conditioned on stay so."""
    trace = trace_on_any_rows(model, args, "known")
    sites = outside(trace, plate or declaration_of(model).plate or "data")
    known = [n for n, s in sites.items() if s["is_observed"] and not is_factor(s)]
    changed: Callable[..., Any] = _Unobserved(known)(model)
    return changed


class AtMean(Messenger):
    """Continuous latents other than those `given` take the mean of their distribution."""

    def __init__(self, given: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.given = given

    def _pyro_sample(self, msg: Any) -> None:
        fn = msg["fn"]
        # uncondition() leaves its note on what was observed: x is drawn all the same.
        if msg["done"] or msg["is_observed"] or msg["infer"].get("was_observed") or msg["name"] in self.given:
            return
        try:
            mean = fn.mean.expand(fn.batch_shape + fn.event_shape)
        except (NotImplementedError, AttributeError):
            return
        if mean.is_floating_point() and not _discrete(fn):
            msg["value"], msg["done"] = mean, True


def _discrete(fn: Any) -> bool:
    try:
        return bool(fn.support.is_discrete)
    except (NotImplementedError, AttributeError):
        return False


def generate(
    program: Callable[..., Any],
    model: Callable[..., Any],
    args: tuple[Any, ...],
    seed: int,
    name: str | None,
    plate: str | None = None,
    on_changed: Callable[[str], None] | None = None,
) -> Generated:
    """One run of `program`, which is `model` with handlers: what it draws at the observed site, and its latents.

    Args:
        program, model: as above.
        args: `(x, *context)`.
        seed: of the draws.
        name: of the observed site; where it is given, its values are what is asked for, in whatever units.
        plate: over data; default: what the model declares, else `"data"`.
        on_changed: called with the name of a site that holds other numbers than those passed as x.

    Raises:
        ValueError: a model that is a bound only; several observed sites and none named.
    """
    if declaration_of(model).density == "bound_only":
        raise ValueError(
            "expected a model that can be drawn from, got one declared density='bound_only': what it observes depends "
            "on the data it is given; try its own sample(), if it has one"
        )
    trace = trace_of(program, model, args, seed, "generate")
    # uncondition() keeps a note of which sites were observed, latents that a reparameteriser computes among them.
    was_observed = [
        n for n, s in sample_sites(trace) if s["infer"].get("was_observed") and not is_computed(s)
    ]
    if name is not None:
        on_changed = None
    name = name or declaration_of(model).observed or (was_observed[0] if len(was_observed) == 1 else None)
    if name not in was_observed:
        if name is None:
            raise ValueError(
                f"expected one observed site to draw, got {was_observed}; try @pv.program(observed=...) on the model, "
                "which names the one that is x"
            )
        raise ValueError(f"expected the name of one observed site of {was_observed}, got {name!r}")
    site: Any = trace.nodes[name]
    try:
        mean = site["fn"].mean.expand(site["value"].shape)
    except (NotImplementedError, AttributeError):
        mean = site["value"]
    if torch.isnan(mean).any():  # torch's answer for a Categorical
        mean = site["value"]
    plate = plate or declaration_of(model).plate or "data"
    if on_changed is not None and is_changed(trace, model, args, name, plate):
        on_changed(name)
    latents = {
        n: rows_first(s, s["value"], plate)
        for n, s in sample_sites(trace)
        if n not in was_observed and not s["is_observed"]
    }
    return Generated(rows_first(site, site["value"], plate), rows_first(site, mean, plate), latents)
