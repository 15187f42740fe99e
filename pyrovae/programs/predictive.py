"""Data that a program generates: from its prior, and from its posterior given data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from .declaration import declaration_of
from .modules import module_mode
from .seeds import seeded
from .sites import sample_sites
from .structure import check_arguments


@dataclass(frozen=True)
class Generated:
    """Draws of a program's observed site, and the latents behind them.

    Attributes:
        x: draws of the observed site, `[N, *event]`.
        mean: mean of its distribution given the latents; the draws where it has no mean.
        latents: name to `[N, *event]`.
    """

    x: Tensor
    mean: Tensor
    latents: dict[str, Tensor]


def simulate(
    model: Callable[..., Any], like: Tensor, *context: Any, seed: int = 0, observed: str | None = None
) -> Generated:
    """Draws (x, z) from p(x, z), as many as `like` has rows (its values are not used).

    Raises:
        ValueError: for a model with several observed sites and none named.
    """
    check_arguments(like)
    return _generate(poutine.uncondition(model), model, (like, *context), seed, observed)


def reconstruct(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    seed: int = 0,
    observed: str | None = None,
) -> Generated:
    """Draws x' ~ p(x' | z) with z ~ q(z | x).

    Raises:
        ValueError: for a model with several observed sites and none named.
    """
    check_arguments(x)

    def program(*args: Any) -> Any:
        with poutine.block():  # the trace around this program is to see the model alone
            trace = poutine.trace(guide).get_trace(*args)
        return poutine.uncondition(poutine.replay(model, trace=trace))(*args)

    return _generate(program, model, (x, *context), seed, observed)


def _generate(
    program: Callable[..., Any], model: Callable[..., Any], args: tuple[Any, ...], seed: int, name: str | None
) -> Generated:
    with (
        seeded(seed, "generate", device=args[0].device),
        torch.no_grad(),
        module_mode(model, training=False),
        pyro.validation_enabled(False),
    ):
        trace = poutine.trace(program).get_trace(*args)
    # uncondition() keeps a note of which sites were observed.
    was_observed = [n for n, s in sample_sites(trace) if s["infer"].get("was_observed")]
    name = name or declaration_of(model).observed or (was_observed[0] if len(was_observed) == 1 else None)
    if name not in was_observed:
        raise ValueError(f"expected the name of one observed site of {was_observed}, got {name!r}")
    site: Any = trace.nodes[name]
    try:
        mean = site["fn"].mean.expand(site["value"].shape)
    except (NotImplementedError, AttributeError):
        mean = site["value"]
    latents: dict[str, Any] = {n: s["value"] for n, s in sample_sites(trace) if n not in was_observed}
    return Generated(site["value"], mean, latents)
