"""`pv.reconstruct`: data drawn again from where the guide puts them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...checking import checked
from ..looking import inspect_program
from .generated import ROWS, Generated
from .predictive import redraw


@checked
def reconstruct(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    seed: int = 0,
    plate: str | None = None,
    observed: str | None = None,
) -> Generated:
    """Draws x'_n ~ p(x' | z) with z ~ q(z | x_n), for every datum in its order.

    Args:
        model, guide, x, *context, plate: as in `pv.log_weights`; latents may be several, and discrete.
        seed: of the draws.
        observed: name of the observed site, for models with several; or for its values as they are, where it holds
            numbers that the model makes of x, such as ln x: not named, that is warned of.

    Returns:
        `x` and `mean` (E[x' | z], the draws where there is none) `[N, *event]`, `latents` by site name `[N, ...]`.

    Raises:
        ValueError: for a pair that breaks the contract; several observed sites and none named.

    Example:
        >>> from pyrovae.models.ground_truths import linear_gaussian
        >>> pair = linear_gaussian(8)
        >>> made = reconstruct(pair.model, pair.guide, pair.x)
        >>> made.mean.shape == pair.x.shape, list(made.latents)
        (True, ['z'])
    """
    program = inspect_program(model, guide, x, *context, plate=plate, vectorised=True)
    chunks = program.arguments.chunks(ROWS)
    return redraw(program, model, guide, chunks, seed=seed, observed=observed)
