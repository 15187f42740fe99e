"""The variational Rényi objective."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from .iwae import bound
from .objective import ParticleObjective


class Renyi(ParticleObjective):
    """L_alpha = 1/(1-alpha) E ln (1/K) sum_k (p(x, z_k) / q(z_k|x))^(1-alpha) (Li & Turner 2016).

    For alpha >= 0 a lower bound on ln p(x) whatever K: alpha = 0 is `IWAE`, alpha -> 1 the ELBO,
    alpha -> inf the smallest weight. For alpha < 0 it tends to an upper bound as K -> inf, but for finite
    K it has no direction. The loss is -sum_n scale_n L_alpha(x_n) in nats, the scale of a subsampled data
    plate outside of the logarithm. https://arxiv.org/abs/1602.02311

    Args:
        alpha: order, not 1.
        num_particles: K >= 2 (with one draw alpha has no effect).
        plate: name of the data plate; default: as the model declares, else "data".
        vectorize_particles: run all K in a particle plate; False for programs that do not broadcast.

    Raises:
        ValueError: for alpha = 1; at the first use as `IWAE`, and inside of `pv.fit` with beta != 1.

    Example:
        >>> Renyi(0.5, num_particles=8)
        Renyi(alpha=0.5, num_particles=8)
    """

    def __init__(
        self,
        alpha: float,
        num_particles: int,
        *,
        plate: str | None = None,
        vectorize_particles: bool = True,
    ) -> None:
        if not math.isfinite(alpha) or abs(1.0 - alpha) < 1e-6:
            raise ValueError(
                f"expected a finite alpha other than 1, got {alpha}; at 1 use the ELBO (Trace_ELBO)"
            )
        super().__init__(
            num_particles,
            at_least=2,
            instead="Trace_ELBO, which one draw gives for any alpha",
            plate=plate,
            vectorize_particles=vectorize_particles,
        )
        self.alpha = float(alpha)

    def __repr__(self) -> str:
        return f"Renyi(alpha={self.alpha:g}, num_particles={self.num_particles})"

    def surrogate_and_value(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The negative objective, twice: its gradient is the one to train with."""
        value = -bound(self.scores(model, guide, args, kwargs), 1.0 - self.alpha)
        return value, value
