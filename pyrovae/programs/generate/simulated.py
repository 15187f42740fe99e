"""Pairs (x, z) drawn from a model, with x in the form in which the model takes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...devices import as_tensor, in_use
from ..arguments.marks import Marked, change, unmarked
from ..checks.agreement import mask_of
from ..checks.contract import check_arguments
from ..checks.measure import is_computed
from ..declaration import declaration_of
from ..handlers.substitute import Substitute
from ..idioms.conditioning import outside
from ..modes import module_mode
from ..plates import take
from ..seeds import seeded
from ..sites import is_factor, sample_sites
from .predictive import simulate
from .running import trace_of


@dataclass(frozen=True)
class Simulated:
    """Draws of p(x, z): each z is an exact draw from the posterior of its x.

    Attributes:
        args: `(x, *context)`, N rows.
        latents: name to values, shaped as in a run on these data.
    """

    args: tuple[Any, ...]
    latents: dict[str, Tensor]


def simulate_pairs(model: Callable[..., Any], num_data: int, like: tuple[Any, ...], seed: int) -> Simulated:
    """`num_data` draws; contexts are those of `like`, in turn.

    A model that declares `simulate=` is asked: `simulate(num_data, *context)` returns `(x, latents)`,
    latents by site name (or the tensor alone, of one site). Else the model runs without its
    observation, and what it draws at the observed site is x, reshaped to rows as in `like`.

    Raises:
        ValueError: no example, a `pyro.factor` in the model, or an observed site that does not
            show what was passed as x (a model that rescales its argument, or observes several sites).
    """
    declared = declaration_of(model).simulate
    if declared is None and not like:
        raise ValueError(
            "expected an example batch x (and contexts) after the guide, for its shape, got none and a model "
            "without simulate=; try pv.sandwich(model, guide, x[:1], simulate=200)"
        )
    context = repeated(like, num_data)[1:] if like else ()
    if declared is not None:
        with seeded(seed, "simulate", device=in_use()), torch.no_grad(), module_mode(model, training=False):
            x, latents = declared(num_data, *unmarked(context))
        check_arguments(x)
        if not isinstance(latents, dict):
            latents = {_latent_names(model, (x, *unmarked(context)))[0]: latents}
        return Simulated((x, *context), latents)

    check_arguments(like[0], missing=True)
    examples = repeated(like, num_data)
    generated = simulate(model, *examples, seed=seed)
    drawn, x = generated.x, examples[0]
    if drawn.numel() != x.numel():
        raise ValueError(
            f"expected the observed site to have one value per element of x {tuple(x.shape)}, got "
            f"{tuple(drawn.shape)}; {_REMEDY}"
        )
    x = drawn.reshape(x.shape).to(x.dtype)
    _check(model, (x, *unmarked(context)), generated.latents, drawn)
    return Simulated((x, *context), generated.latents)


_REMEDY = "try @pyrovae.program(simulate=...), which draws (x, latents)"


def _check(model: Any, args: tuple[Any, ...], latents: dict[str, Tensor], drawn: Tensor) -> None:
    """The model, given x, must observe what was drawn."""
    trace = trace_of(Substitute(latents)(model), model, args, 0, "simulate")
    shared = outside(trace, declaration_of(model).plate or "data")  # latents that are conditioned on
    observed = {
        n: s
        for n, s in sample_sites(trace)
        if s["is_observed"] and (is_factor(s) or n not in shared) and not is_computed(s)
    }
    factors = [n for n, s in observed.items() if is_factor(s)]
    if factors:
        raise ValueError(f"expected a model that can be drawn from, got pyro.factor at {factors}; {_REMEDY}")
    if len(observed) > 1:
        raise ValueError(f"expected one observed site that maps back to x, got {list(observed)}; {_REMEDY}")
    ((name, site),) = observed.items()
    # What a mask leaves out may stand for anything.
    if site["value"].shape != drawn.shape or not (
        torch.isclose(site["value"].to(drawn.dtype), drawn, rtol=1e-5, atol=1e-5)
        .logical_or(~as_tensor(mask_of(site)))
        .all()
    ):
        raise ValueError(
            f"expected the observed site {name!r} to hold what was passed as x, got other values: the model changes "
            f"its argument before it observes it; {_REMEDY}"
        )


def _latent_names(model: Any, args: tuple[Any, ...]) -> list[str]:
    trace = trace_of(model, model, args, 0, "simulate")
    return [n for n, s in sample_sites(trace) if not s["is_observed"]]


def repeated(like: tuple[Any, ...], num_data: int, start: int = 0) -> tuple[Any, ...]:
    """Rows of the example, over and over, from the one of number `start` on; marks stay."""
    n = len(like[0])
    rows = torch.arange(start, start + num_data, device=like[0].device) % n

    def leaf(v: Any) -> Any:
        return Marked(take(v, rows, n), v.per_datum) if isinstance(v, Marked) else take(v, rows, n)

    return (like[0][rows], *(change(c, leaf) for c in like[1:]))
