"""Guides of a hierarchy: from the data upward, or downward along the model's own path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyro.distributions as dist
from torch import Tensor, nn

from .paths import Path

# Draws the latent of a level from a distribution and returns it.
Draw = Callable[[int, Any], Tensor]


class BottomUp(nn.Module):
    """q(z_1 | x) q(z_2 | z_1) ... q(z_T | z_{T-1}) (Rezende et al. 2014, Burda et al. 2016).

    To be trained by `Trace_ELBO`: `TraceMeanField_ELBO` would be wrong in silence, and is refused.
    https://arxiv.org/abs/1509.00519

    Args:
        levels: q(z_1 | x), q(z_2 | z_1), ...: modules that return a distribution, for example
            `pyrovae.guides.DiagonalGaussian`.

    Raises:
        ValueError: no levels.
    """

    shares_path = False

    def __init__(self, levels: Sequence[nn.Module]) -> None:
        super().__init__()
        _check_levels(levels)
        self.levels = nn.ModuleList(levels)
        self.num_levels = len(levels)

    def forward(self, path: Path, draw: Draw, x: Tensor, *context: Tensor) -> None:
        """Draws z_1, ..., z_T."""
        z = draw(1, self.levels[0](x, *context))
        for t, level in enumerate(self.levels[1:], 2):
            z = draw(t, level(z))

    @property
    def top(self) -> nn.Module:
        """Has the `latent_dim` of the top level; a prior cannot call it: q(z_T | x) has no density of its own."""
        return _NoTop(int(self.levels[-1].latent_dim))  # type: ignore[arg-type]  # a number


class TopDown(nn.Module):
    r"""The ladder (Sonderby et al. 2016): q(z_T | x) then q(z_t | z_{t+1}, x), downward along the model's path.

    A deterministic pass upward gives a Gaussian :math:`\hat q_t(x)` for each level, which is merged with the
    model's own :math:`p(z_t | z_{t+1})` by precision: :math:`\sigma_q^{-2} = \hat\sigma^{-2} + \sigma_p^{-2}`,
    :math:`\mu_q = \sigma_q^2 (\hat\mu\,\hat\sigma^{-2} + \mu_p\,\sigma_p^{-2})`. The top level takes
    :math:`\hat q_T`. The guide runs the model's path itself, so the two share its parameters. Valid under
    `TraceMeanField_ELBO`. https://arxiv.org/abs/1602.02282

    Args:
        encoders: from x to features d_1, from d_1 to d_2, ...
        heads: from d_t to a Gaussian of level t, as `DiagonalGaussian` gives it.

    Raises:
        ValueError: no levels, or not one head for each encoder; on a call, levels that are not Gaussian.
    """

    shares_path = True

    def __init__(self, encoders: Sequence[nn.Module], heads: Sequence[nn.Module]) -> None:
        super().__init__()
        _check_levels(encoders)
        if len(encoders) != len(heads):
            raise ValueError(f"expected one head for each of {len(encoders)} encoders, got {len(heads)}")
        self.encoders, self.heads = nn.ModuleList(encoders), nn.ModuleList(heads)
        self.num_levels = len(heads)

    def forward(self, path: Path, draw: Draw, x: Tensor, *context: Tensor) -> None:
        """Draws z_T, ..., z_1."""
        ups = []
        features = self.encoders[0](x, *context)
        for t, head in enumerate(self.heads, 1):
            features = features if t == 1 else self.encoders[t - 1](features)
            ups.append(head(features))
        state = path.start(draw(self.num_levels, ups[-1]))
        for t in range(self.num_levels - 1, 0, -1):
            z = draw(t, merged(ups[t - 1], path.below(t, state)))
            # What is below level 1 the likelihood sees, and the guide does not need.
            state = path.join(t, state, z) if t > 1 else state

    @property
    def top(self) -> nn.Module:
        """q(z_T | x) as a module of its own, sharing its parameters, for a VampPrior."""
        return _Top(self.encoders, self.heads[-1])


def merged(up: Any, down: Any) -> Any:
    """The normalised product of two diagonal Gaussians.

    Raises:
        ValueError: for other distributions.
    """
    for d in (up, down):
        if not isinstance(getattr(d, "base_dist", d), dist.Normal):
            raise ValueError(
                f"expected Gaussian levels for a top-down guide, got {type(getattr(d, 'base_dist', d)).__name__}; "
                "try BottomUp"
            )
    above, below = down.variance, up.variance
    total = above + below
    # As a correction of the mean from above: no division by a variance that may be tiny.
    loc = down.mean + above / total * (up.mean - down.mean)
    return dist.Normal(loc, (above * below / total).sqrt()).to_event(1)


class _Top(nn.Module):
    def __init__(self, encoders: nn.ModuleList, head: nn.Module) -> None:
        super().__init__()
        self.encoders, self.head = encoders, head
        self.latent_dim = int(head.latent_dim)  # type: ignore[arg-type]  # a number

    def forward(self, x: Tensor, *context: Tensor) -> Any:
        features = self.encoders[0](x, *context)
        for encoder in self.encoders[1:]:
            features = encoder(features)
        return self.head(features)


class _NoTop(nn.Module):
    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def forward(self, *_: Tensor) -> Any:
        raise ValueError(
            "expected a guide whose q(z_T | x) has a density of its own for a VampPrior, got a bottom-up one of "
            "several levels; try a top-down guide"
        )


def _check_levels(levels: Sequence[nn.Module]) -> None:
    if not levels:
        raise ValueError("expected at least one level, got none")
