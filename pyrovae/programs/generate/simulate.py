"""`pv.simulate`: data and latents drawn from a model, as many as asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro import poutine

from ...checking import checked
from ..arguments.contexts import decide
from ..checks.explained import explained
from ..declaration import declaration_of
from ..modes import module_mode
from ..seeds import seed_of_part
from ..sites import is_factor, sample_sites
from . import predictive
from .changed import refuse_changed
from .generated import ROWS, Generated, join
from .running import trace_on_any_rows
from .simulated import repeated, simulate_pairs


@checked
def simulate(
    model: Callable[..., Any],
    num_data: int,
    *like: Any,
    seed: int = 0,
    plate: str | None = None,
    observed: str | None = None,
) -> Generated:
    """Draws (x, z) from p(x, z), the prior predictive; with contexts from p(x, z | context).

    A model that declares `simulate=` is asked; what it returns has no means of p(x | z), so `mean` is x there.

    Args:
        model: `model(x, *context)`, of any Pyro program.
        num_data: how many draws.
        *like: an example `(x, *context)`: shapes, and contexts, of which what is per datum is used row by row in turn.
            Not needed where the model declares `simulate=`.
        seed: of the draws.
        plate: name of the data plate; default: what the model declares, else `"data"`.
        observed: name of the observed site, for models with several; or for its values as they are, where it holds
            numbers that the model makes of x.

    Returns:
        `x` and `mean` `[num_data, *event]`, `latents` by site name `[num_data, ...]`.

    Raises:
        ValueError: no example; a model with a `pyro.factor`, an unnormalised density or one that is a bound only,
            from which nothing can be drawn; several observed sites and none named; an observed site, not named, that
            holds numbers that the model makes of x, whose draws are no new x; a data plate of fixed size; context of
            which it does not show whether it is per datum.

    Example:
        >>> import pyro, torch
        >>> import pyro.distributions as dist
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 0.1), obs=x)
        >>> simulate(model, 500, torch.zeros(1)).x.shape
        torch.Size([500])
    """
    if declaration_of(model).simulate is not None:
        drawn = simulate_pairs(model, num_data, like, seed)
        return Generated(drawn.args[0], drawn.args[0], drawn.latents)
    if not like:
        raise ValueError(
            "expected an example x (and its context) after the number of data, for their shapes, got none; try "
            f"pv.simulate(model, {num_data}, x[:1])"
        )
    _refuse_factors(model, like)
    like = (like[0], *_told_apart(model, like, plate))
    parts: list[Generated] = []
    for start in range(0, num_data, ROWS):
        rows = min(ROWS, num_data - start)
        with explained(like[0], like[1:]):
            made = predictive.simulate(
                model,
                *repeated(like, rows, start),
                seed=seed_of_part(seed, len(parts)),
                observed=observed,
                plate=plate,
                on_changed=None if parts else refuse_changed,
            )
        if len(made.x) != rows:
            raise ValueError(
                f"expected a model whose data plate follows len(x) = {rows}, got one that draws {len(made.x)} data; "
                "try pyro.plate(name, len(x))"
            )
        parts.append(made)
    return join(parts)


def _told_apart(model: Callable[..., Any], like: tuple[Any, ...], plate: str | None) -> tuple[Any, ...]:
    """The context with marks on what is per datum and what all data share, by the densities of the prior's draws."""
    x, *context = like
    prior = poutine.block(model, hide_fn=lambda site: bool(site["is_observed"]))
    plate = plate or declaration_of(model).plate or "data"
    with torch.no_grad(), module_mode(model, training=False):
        return decide(model, prior, x, tuple(context), plate)


def _refuse_factors(model: Callable[..., Any], like: tuple[Any, ...]) -> None:
    """Raises ValueError for densities that a run of the model does not draw from."""
    if declaration_of(model).density == "bound_only":
        return  # which `predictive.simulate` refuses, with a remedy
    trace = trace_on_any_rows(model, like, "simulate")
    factors = [n for n, s in sample_sites(trace) if is_factor(s)]
    if factors:
        raise ValueError(
            f"expected a model that can be drawn from, got pyro.factor at {factors}, which no draw takes into account; "
            "try @pyrovae.program(simulate=...), which draws (x, latents)"
        )
