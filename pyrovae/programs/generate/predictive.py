"""Data that a program generates: from its prior, and from its posterior given data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from ..checks.contract import check_arguments
from ..handlers.substitute import Substitute
from ..inspection import Program
from ..looking import inspect_program
from ..plates import ChooseSubsample
from ..seeds import seed_of_part, seeded
from .changed import warn_changed
from .drawing import AtMean, generate, unobserved
from .generated import ROWS, Generated, join


def simulate(
    model: Callable[..., Any],
    like: Tensor,
    *context: Any,
    seed: int = 0,
    observed: str | None = None,
    plate: str | None = None,
    on_changed: Callable[[str], None] | None = None,
) -> Generated:
    """Draws (x, z) from p(x, z), as many as `like` has rows (its values are not used).

    `on_changed` is called with the name of a site that holds numbers that the model makes of x.

    Raises:
        ValueError: for a model with several observed sites and none named.
    """
    check_arguments(like, missing=True)
    args = (like, *context)
    return generate(unobserved(model, args, plate), model, args, seed, observed, plate, on_changed)


def reconstruct(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    seed: int = 0,
    observed: str | None = None,
    plate: str | None = None,
    on_changed: Callable[[str], None] | None = warn_changed,
) -> Generated:
    """Draws x' ~ p(x' | z) with z ~ q(z | x).

    `on_changed` is called with the name of a site that holds numbers that the model makes of x.

    Raises:
        ValueError: for a model with several observed sites and none named.
    """
    check_arguments(x, missing=True)
    args = (x, *context)
    drawn = unobserved(model, args, plate)

    def program(*args: Any) -> Any:
        with poutine.block():  # the trace around this program is to see the model alone
            trace = poutine.trace(guide).get_trace(*args)
        return poutine.replay(drawn, trace=trace)(*args)

    return generate(program, model, args, seed, observed, plate, on_changed)


def decode(
    model: Callable[..., Any],
    latents: Mapping[str, Tensor],
    like: Tensor,
    *context: Any,
    seed: int = 0,
    observed: str | None = None,
    means: bool = False,
    on_changed: Callable[[str], None] | None = warn_changed,
) -> Generated:
    """Draws x ~ p(x | z) at the latents given; the other latents are drawn from p given those.

    Args:
        model: `model(like, *context)`.
        latents: site name to values in the site's own shape, for as many data as `like` has rows.
        like: data whose values are not used.
        *context: as the model takes it.
        seed: of the draws.
        observed: name of the observed site.
        means: put continuous latents that are not given at the mean of their distribution given
            those before them, instead of drawing them.
        on_changed: called with the name of a site that holds numbers that the model makes of x.

    Raises:
        ValueError: for names that are no latents of the model; several observed sites and none named.
    """
    check_arguments(like, missing=True)
    substitute = Substitute(latents)
    args = (like, *context)
    program = substitute(unobserved(model, args))
    program = AtMean(latents)(program) if means else program
    made = generate(program, model, args, seed, observed, on_changed=on_changed)
    unused = [n for n in latents if n not in substitute.used]
    if unused:
        raise ValueError(f"expected latents of the model ({list(made.latents)}), got {unused}")
    return made


def aggregate_posterior(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    num_draws: int,
    seed: int = 0,
    plate: str | None = None,
    observed: str | None = None,
) -> Generated:
    """Draws z from the aggregate posterior q(z) = (1/N) Σ_n q(z | x_n), and x ~ p(x | z).

    Data are taken in random order, each once before any is taken again. Where q(z) differs from
    p(z), these look better than draws from the prior (Makhzani et al. 2015, Hoffman & Johnson 2016).
    https://arxiv.org/abs/1511.05644

    Args:
        model, guide, x, *context, plate: as in `pv.log_weights`.
        num_draws: how many.
        seed: of the draws.
        observed: name of the observed site, for models with several.

    Raises:
        ValueError: for num_draws < 1; a pair that breaks the contract.
    """
    if num_draws < 1:
        raise ValueError(f"expected num_draws >= 1, got {num_draws}")
    program = inspect_program(model, guide, x, *context, plate=plate, vectorised=True)
    args = program.arguments
    with seeded(seed, "aggregate", device=x.device):
        rounds = -(-num_draws // len(x))
        orders = [torch.randperm(len(x), device=x.device) for _ in range(rounds)]
    if args.calling == "whole":  # a run is of all data: one for each time they are taken
        orders[-1] = orders[-1][: num_draws - (rounds - 1) * len(x)]
        chunks = orders
    else:
        chunks = list(torch.cat(orders)[:num_draws].split(args.subsample_size or ROWS))
    return redraw(program, model, guide, chunks, seed=seed, observed=observed)


def redraw(
    program: Program,
    model: Callable[..., Any],
    guide: Callable[..., Any],
    chunks: Sequence[Tensor],
    *,
    seed: int,
    observed: str | None,
) -> Generated:
    """Draws x' ~ p(x' | z), z ~ q(z | x) for the data at the indices in `chunks`, in that order."""
    args = program.arguments
    parts: list[Generated] = []
    for rows in chunks:
        chosen = guide
        if args.subsample_size is not None and args.calling == "indexed":
            # reconstruct() hides the guide from handlers around it.
            padded = torch.cat([rows, rows[-1:].expand(args.subsample_size - len(rows))])
            chosen = ChooseSubsample(args.plate, padded)(guide)
        with program.on(rows) as given:
            part = reconstruct(
                model,
                chosen,
                *given,
                seed=seed_of_part(seed, len(parts)),
                observed=observed,
                plate=program.plate,
                on_changed=None if parts else warn_changed,  # said once
            )
        kept = rows if args.calling == "whole" else torch.arange(len(rows), device=args.x.device)
        parts.append(part.rows(kept))
    return join(parts)
