"""Whether what a model draws at its observed site are data, or numbers that it makes of its data."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ...devices import as_tensor
from ..checks.agreement import mask_of
from ..checks.observed import transformed_sites
from ..parameters import scratch
from .running import rows_first, trace_of, trace_on_any_rows

OFF = 0.05  # of the spread of a number over the draws, beyond which another one stands for it

LAWS_OF_X = "pv.likelihoods.Standardized or LogNormal, dist.TransformedDistribution"


def refuse_changed(name: str) -> None:
    """Raises ValueError: what the site holds is no new x."""
    raise ValueError(
        f"expected a model that observes x itself, got one whose site {name!r} holds numbers that it makes of x (as "
        f"x.log() or (x - mean) / scale): draws of it are no new data; try observed={name!r} for values of that site "
        f"as they are, a law of x ({LAWS_OF_X}), or @pyrovae.program(simulate=...)"
    )


def warn_changed(name: str) -> None:
    """Warns that `.x` and `.mean` are in other units than the data."""
    warnings.warn(
        f"x and mean are values of the site {name!r}, which holds numbers that the model makes of its data (as x.log() "
        f"or (x - mean) / scale), and not in the units of the data; observed={name!r} asks for them as they are, a law "
        f"of x ({LAWS_OF_X}) draws data",
        stacklevel=2,
    )


def is_changed(trace: Any, model: Callable[..., Any], args: tuple[Any, ...], name: str, plate: str) -> bool:
    """Whether the model, given what it has drawn as its data, observes other numbers at the site.

    Given its own draws there is nothing missing to be filled in and nothing grey to be made bits. Noise that the model
    adds to its data, and numbers that do not follow from them (of its context, paddings) or that masks leave out, do
    not count. Where the draws are not in the form of x (one of several sites), numbers that x and its context do not
    have are others.

    Args:
        trace: of the run that has drawn.
        model: without handlers.
        args: `(x, *context)` that it was given.
        name: of the observed site.
        plate: over data.
    """
    x, *context = args
    site = trace.nodes[name]
    given = trace_on_any_rows(model, args, "changed")
    drawn = rows_first(site, site["value"], plate).detach()
    if _fits(drawn, x):
        as_data = drawn.reshape(x.shape)
        as_data = as_data.to(x.dtype) if x.is_floating_point() or not drawn.is_floating_point() else as_data
        runs = [_held(trace, model, (as_data, *context), name, plate, seed, given) for seed in (0, 1)]
        held, again, of_given = (
            v.detach().reshape(len(drawn), -1).double()
            if v is not None and v.numel() == drawn.numel()
            else None
            for v in (*runs, _value(given, name, plate))
        )
        if held is not None and again is not None and of_given is not None:
            return _is_off(held, again, of_given, drawn.reshape(len(drawn), -1).double())
    return name in given and name in transformed_sites(given, x, tuple(context))


def _fits(drawn: Tensor, x: Tensor) -> bool:
    """Whether draws are in the form of x, or of its rows laid flat."""
    if drawn.is_complex() or x.is_complex() or drawn.numel() != x.numel() or len(drawn) != len(x):
        return False
    return drawn.shape == x.shape or drawn.dim() <= 2 or x.dim() <= 2


def _held(
    trace: Any, model: Callable[..., Any], args: tuple[Any, ...], name: str, plate: str, seed: int, given: Any
) -> Tensor | None:
    """Values of the observed site, data first, in a run on these data with the latents of `trace`.

    Where its masks leave them out, they are those of the run `given`.
    """
    program = poutine.replay(model, trace=trace)
    try:
        with scratch(model), poutine.block():
            again = trace_of(program, model, args, seed, "changed")
    except Exception:  # draws of the site that are no data for the model: each has an error of its own
        return None
    site, other = again.nodes.get(name), given.nodes.get(name)
    if site is not None and other is not None and site["value"].shape == other["value"].shape:
        site["value"] = torch.where(as_tensor(mask_of(site)), site["value"], other["value"])
    return _value(again, name, plate)


def _value(trace: Any, name: str, plate: str) -> Tensor | None:
    site = trace.nodes.get(name)
    value = None if site is None else site["value"]
    return rows_first(site, value, plate) if isinstance(value, Tensor) and not value.is_complex() else None


def _is_off(held: Tensor, again: Tensor, of_given: Tensor, drawn: Tensor) -> bool:
    """Whether a column of what is held is another one than what was drawn, all `[N, D]`."""
    follows = held != of_given  # true for NaN, as of the logarithm of a negative draw
    count = follows.sum(0)
    off = torch.where(follows, (held - drawn).abs().nan_to_num(nan=torch.inf), 0.0)
    noise = (held - again).abs().nan_to_num(nan=0.0)
    spread = (drawn - drawn.mean(0)).abs().mean(0)
    allowed = OFF * spread + 5 * noise.mean(0) + 1e-4 * drawn.abs().mean(0) + 1e-6
    return bool(((off.sum(0) / count) > allowed)[count > 0].any())
