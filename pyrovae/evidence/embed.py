"""`pv.embed`: posterior means of the latents, datum by datum."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..checking import checked
from ..programs import guide_means, inspect_program
from .posterior import posterior
from .weights.diagnostics import khat_threshold, smoothed_log_weights


@checked
def embed(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    resampled: bool = False,
    num_samples: int | None = None,
    seed: int = 0,
    plate: str | None = None,
    given: Mapping[str, Tensor] | None = None,
) -> Tensor | dict[str, Tensor]:
    """Means of the latents given each datum: of the guide, E_q[z | x_n], or of the posterior, E_p[z | x_n].

    Exact for the guide of a single site whose distribution tells its mean; else a mean over draws, with their
    Monte-Carlo error, so also of angles and directions (von Mises, projected normal), which tell the mean on the
    circle or sphere in its place. Of a categorical latent it is its probabilities.

    Args:
        model, guide, x, *context, seed, plate, given: as in `log_weights`.
        resampled: weigh draws of the guide by importance, with Pareto-smoothed weights (as `pv.posterior`), so that
            the means are those of the posterior. Where k-hat is high they are not, which is said.
        num_samples: draws per datum; default 100 of the guide, 1000 where they are weighed.

    Returns:
        `[N, *rest]` of a pair with one latent site; else a dict by site name, in the guide's order.

    Raises:
        ValueError: as `log_weights`; where the guide draws none of the model's latents, or one from a law without a
            finite mean (of Cauchy).

    Example:
        >>> from pyrovae.models.ground_truths import linear_gaussian
        >>> pair = linear_gaussian(8, latent_dim=2)
        >>> embed(pair.model, pair.guide, pair.x).shape
        torch.Size([8, 2])
    """
    if not isinstance(resampled, bool):
        raise TypeError(f"expected resampled to be True or False, got {resampled!r}")
    program = inspect_program(model, guide, x, *context, plate=plate, vectorised=True, given=given)
    means = guide_means(program, 1 if resampled else (num_samples or 100), seed, existing=not resampled)
    if resampled:
        draws = posterior(
            model, guide, x, *context, num_samples=num_samples or 1000, seed=seed, plate=plate, given=given
        )
        smooth, _ = smoothed_log_weights(draws.log_weights)
        # Data with zero weights only have no posterior mean: that of the guide is as good, and k-hat says inf.
        weights = torch.where(torch.isfinite(smooth.softmax(0)), smooth.softmax(0), 1 / len(smooth))
        means = {name: _weighted(value, weights, means[name]) for name, value in draws.draws.items()}
        _warn(draws.khat, khat_threshold(len(smooth)))
    return next(iter(means.values())) if len(means) == 1 else means


def _weighted(draws: Tensor, weights: Tensor, like: Tensor) -> Tensor:
    """Weighted mean over draws `[K, N, *rest]`, in the shape and dtype of the guide's mean."""
    if like.dim() == draws.dim():  # [N, ..., C]: a categorical's draws are classes
        draws = torch.nn.functional.one_hot(draws.long(), like.shape[-1])
    shaped = weights.to(draws.device).reshape(*weights.shape, *(1,) * (draws.dim() - 2))
    return (shaped * draws).sum(0).to(like.dtype)


def _warn(khat: Tensor, threshold: float) -> None:
    share = float((khat > threshold).double().mean())
    if share > 0:
        warnings.warn(
            f"for {share:.0%} of the data k-hat is above {threshold:.2f}: few draws of the guide make up their means, "
            "which are no posterior means; try more num_samples, or a better guide",
            stacklevel=4,
        )
