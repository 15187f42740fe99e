"""Log-densities of two laws at draws of one of them."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..devices import in_use
from ..programs import seeded
from ..programs.outside import outside


@runtime_checkable
class Density(Protocol):
    """Law as `kl` and `js` use it: a torch or Pyro distribution, an `IsingTorus`, or your own.

    `log_prob` has to be normalised: an unnormalised one shifts a KL by ln Z, unnoticed.
    """

    def sample(self, sample_shape: Any = ...) -> Tensor:
        """Draws `[*sample_shape, *batch, *event]`."""
        ...

    def log_prob(self, value: Tensor, /) -> Tensor:
        """Normalised ln p `[*sample_shape, *batch]`."""
        ...


def drawn(p: Density, q: Density, num_samples: int, seed: int, stream: str) -> tuple[Tensor, Tensor]:
    """ln p and ln q `[S, *batch]`, float64, at draws of p."""
    with seeded(seed, f"divergence of {stream}", device=in_use()):
        shape = torch.Size([num_samples])
        if isinstance(p, Distribution) and isinstance(q, Distribution) and p.batch_shape != q.batch_shape:
            batch = torch.broadcast_shapes(p.batch_shape, q.batch_shape)
            p = p if p.batch_shape == batch else p.expand(batch)
            q = q if q.batch_shape == batch else q.expand(batch)
        x = p.sample(shape)
        own, other = p.log_prob(x).double(), _log_prob(q, x, shape).double()
    for value in (own, other):
        if bool(value.isnan().any()) or bool((value == torch.inf).any()):
            raise ValueError("expected log-densities below +inf, got NaN or +inf at a draw")
    if bool((own == -torch.inf).any()):
        raise ValueError("expected draws where their own density is positive, got ln p = -inf at a draw")
    return own, other


def _log_prob(law: Density, x: Tensor, shape: torch.Size) -> Tensor:
    """ln of the density, -inf outside of the support, where torch would raise or give NaN."""
    if not isinstance(law, Distribution):
        return law.log_prob(x)
    try:
        support = law.support
        inside = None if support is None else support.check(x)
    except (NotImplementedError, AttributeError):
        return law.log_prob(x)
    beyond = outside(law, x)  # a transformed law declares the support of its last transform alone
    if inside is not None and beyond is not None:
        inside = inside & ~beyond
    if inside is None or bool(inside.all()):
        return law.log_prob(x)
    events = inside.reshape(*inside.shape, *[1] * len(law.event_shape))
    # Its own draws stand in where x is outside: they alone are sure to be accepted.
    return torch.where(inside, law.log_prob(torch.where(events, x, law.sample(shape))), -torch.inf)


def variance_of_mean(values: Tensor) -> Tensor:
    """Variance of the mean of draws `[S, *batch]`; NaN for a single one."""
    if len(values) < 2:
        return torch.full_like(values[0], torch.nan)
    return values.var(0) / len(values)


def error_of_mean(values: Tensor) -> Tensor:
    """Standard error of the mean of draws `[S, *batch]`, at least |mean| / S.

    Draws that are all alike say nothing of what has a probability of less than 1/S.
    """
    return torch.maximum(variance_of_mean(values).sqrt(), values.mean(0).abs() / len(values))
