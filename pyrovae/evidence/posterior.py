"""Draws from the posterior: of the guide with their weights, and resampled by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..checking import checked
from ..programs import inspect_program
from ..programs.latents.latent_draws import LatentDraws, latent_draws
from .core.checks import check_density
from .core.chunks import pairs_in
from .weights.diagnostics import effective_sample_size, smoothed_log_weights
from .weights.narrower_guides import warn_narrower
from .weights.unreached import warn_unreached


@dataclass(frozen=True)
class PosteriorDraws:
    """K draws of each datum's latents, by importance.

    Attributes:
        draws: of the guide: latent to `[K, N, *rest]`.
        log_weights: of those, `[K, N]`, nats.
        resampled: latent to `[K, N, *rest]`: draws picked again with their PSIS weights.
        log_likelihood: observed site to ln p(x|z) of the resampled draws, `[K, N]`, nats; empty where
            discrete latents are summed out.
        khat, ess: of the weights, `[N]`.
        x: the data.
    """

    draws: dict[str, Tensor] = field(repr=False)
    log_weights: Tensor = field(repr=False)
    resampled: dict[str, Tensor] = field(repr=False)
    log_likelihood: dict[str, Tensor] = field(repr=False)
    khat: Tensor
    ess: Tensor
    x: Tensor = field(repr=False)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name} {list(values.shape)}" for name, values in self.draws.items())
        ess = f"ESS {float(self.ess.min()):.0f} to {float(self.ess.max()):.0f} of {len(self.log_weights)}"
        return f"PosteriorDraws({shapes}; {ess}, largest k-hat {float(self.khat.max()):.2f})"

    def to_arviz(self) -> Any:
        """`arviz.InferenceData` (0.x) or `xarray.DataTree` (1.x); see `pyrovae.export`."""
        from ..export import posterior_to_arviz

        return posterior_to_arviz(self)


@checked
def posterior(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Tensor,
    *context: Any,
    num_samples: int = 1000,
    seed: int = 0,
    plate: str | None = None,
    budget: int | None = None,
    given: Mapping[str, Tensor] | None = None,
) -> PosteriorDraws:
    """Draws z_nk ~ p(z | x_n), by sampling importance resampling with Pareto-smoothed weights.

    The smoothing (Vehtari et al. 2024, https://arxiv.org/abs/1507.02646) steadies expectations over
    draws; it would bias the evidence, which is why `pv.evidence` does without. Where k-hat is high the
    resampled draws are no posterior: few draws of the guide make up most of them.

    Args:
        model, guide, x, *context, seed, plate, budget, given: as in `log_weights`.
        num_samples: K draws per datum, all kept.

    Raises:
        ValueError: as `log_weights`; a program that does not broadcast over samples.

    Example:
        >>> from pyrovae.models.ground_truths import linear_gaussian
        >>> pair = linear_gaussian(8, latent_dim=2)
        >>> draws = posterior(pair.model, pair.guide, pair.x, num_samples=100)
        >>> draws.resampled["z"].shape
        torch.Size([100, 8, 2])
    """
    program = inspect_program(model, guide, x, *context, plate=plate, given=given)
    check_density(program)
    warn_narrower(program)
    rows = max(1, pairs_in(program, budget) // num_samples)
    parts: list[LatentDraws] = []
    picked: list[Tensor] = []
    khat: list[Tensor] = []
    for i, indices in enumerate(program.arguments.chunks(rows)):
        with program.quiet(seed, "posterior", i):
            part = latent_draws(program, indices, num_samples)
            smooth, k = smoothed_log_weights(part.log_weights)
            weights = smooth.softmax(0)
            # Data with zero weights only have no posterior draws: any will do, k-hat says inf.
            weights = torch.where(torch.isfinite(weights), weights, torch.ones_like(weights))
            picked.append(torch.multinomial(weights.T, num_samples, replacement=True).T.to(x.device))
        parts.append(part)
        khat.append(k)
    order = torch.cat(picked, 1)

    def cat(values: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.cat([v[name] for v in values], 1) for name in values[0]}

    def pick(values: dict[str, Tensor]) -> dict[str, Tensor]:
        n = torch.arange(order.shape[1], device=order.device)
        return {name: v[order, n] for name, v in values.items()}

    draws, likelihood = cat([p.values for p in parts]), cat([p.log_likelihood for p in parts])
    log_weights = torch.cat([p.log_weights for p in parts], 1)
    warn_unreached(program, log_weights.logsumexp(0) - math.log(num_samples), num_samples, seed, budget)
    ess = effective_sample_size(log_weights).cpu()
    return PosteriorDraws(draws, log_weights, pick(draws), pick(likelihood), torch.cat(khat), ess, x)
