"""Latents that all data share, known: their values are conditioned on, and their own densities are left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ..layers import around
from ..sites import is_factor, sample_sites


def outside(trace: Any, plate: str) -> dict[str, Any]:
    """Sites outside of the data plate, where a site is inside of it at all."""
    sites = dict(sample_sites(trace))
    inside = {n for n, s in sites.items() if any(f.name == plate for f in s["cond_indep_stack"])}
    return {n: s for n, s in sites.items() if n not in inside} if inside else {}


def conditioned(trace: Any, again: Any, plate: str, args: Iterable[Any]) -> dict[str, Tensor]:
    """Sites outside of the data plate that are observed at a value of their own, and their values.

    A value that the data have a part in is no such value (`again` is a trace of other data), and a site that comes
    after a latent of the data may depend on it: such sites are none of these, and are refused where they are judged.
    """
    first = next(
        (
            i
            for i, (_, s) in enumerate(sample_sites(trace))
            if not s["is_observed"] and any(f.name == plate for f in s["cond_indep_stack"])
        ),
        None,
    )
    order = [n for n, _ in sample_sites(trace)]
    data = {t.untyped_storage().data_ptr() for t in args if isinstance(t, Tensor)}
    found = {}
    for name, site in outside(trace, plate).items():
        value, other = (_as_tensor(t.nodes.get(name, {}).get("value")) for t in (trace, again))
        if not site["is_observed"] or is_factor(site) or value is None:
            continue
        fixed = other is not None and torch.equal(value, other)
        own = value.untyped_storage().data_ptr() not in data
        if fixed and own and (first is None or order.index(name) < first):
            found[name] = value
    return found


def _as_tensor(value: Any) -> Tensor | None:
    """A value of a site; numbers as tensors, since `pyro.condition` takes both."""
    return (
        torch.tensor(value)
        if isinstance(value, int | float)
        else value
        if isinstance(value, Tensor)
        else None
    )


def check_given(trace: Any, plate: str, given: Mapping[str, Any]) -> None:
    """Refuses values of what is no latent outside of the data plate, or of another shape.

    Args:
        trace: of the model alone, without them.
        plate: the data plate.
        given: values by name.

    Raises:
        ValueError: naming sites and shapes.
        TypeError: for a value that is no tensor.
    """
    known = {n: s for n, s in outside(trace, plate).items() if not s["is_observed"]}
    for name, value in given.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"expected given[{name!r}] to be a tensor, got {type(value).__name__}")
        if name not in known:
            already = name in trace.nodes and trace.nodes[name].get("is_observed", False)
            raise ValueError(
                f"expected given to name latents outside of the plate {plate!r}, {sorted(known)}, got {name!r}"
                + (", which is given already (a fit's model has what pv.fit was given)" if already else "")
            )
        shape = known[name]["fn"].shape()
        if value.shape != shape:
            raise ValueError(f"expected given[{name!r}] of shape {tuple(shape)}, got {tuple(value.shape)}")


def given_to(model: Callable[..., Any], values: Mapping[str, Tensor]) -> Callable[..., Any]:
    """The model with these latents observed."""
    return around(model, poutine.condition(model, data=dict(values)))


def without(fn: Callable[..., Any], names: Iterable[str]) -> Callable[..., Any]:
    """`fn` without these sites in its traces."""
    return around(fn, poutine.block(fn, hide=list(names)))


def check_laws_of_globals(model: Callable[..., Any], program: Any) -> None:
    """Refuses to leave out the density of a conditioned global that has parameters: they would not be trained.

    Raises:
        ValueError: naming it.
    """
    if not program.globals:
        return
    with torch.enable_grad(), program.on(program.arguments.chunks(2)[0]) as given:
        trace = poutine.trace(model).get_trace(*given)
    for name in program.globals:
        site: Any = trace.nodes[name]
        if site["fn"].log_prob(_as_tensor(site["value"])).requires_grad:
            raise ValueError(
                f"expected a law of the conditioned latent {name!r} without parameters, got one that has some: its "
                "density is left out of p(x | given), and they would never be trained; try to observe it in the plate"
            )
