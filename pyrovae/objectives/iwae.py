"""The importance-weighted bound."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..programs.particles.particles import Scores
from .objective import ParticleObjective


def bound(scores: Scores, power: float = 1.0) -> Tensor:
    """sum_n scale_n (1/power) ln (1/K) sum_k w_kn^power: the scale outside of the logarithm."""
    log_weights = scores.log_weights
    mean = torch.logsumexp(power * log_weights, 0) - math.log(len(log_weights))
    return (scores.scale * mean / power).sum()


class IWAE(ParticleObjective):
    """L_K = E ln (1/K) sum_k p(x, z_k) / q(z_k|x), K draws of q (Burda, Grosse & Salakhutdinov 2016).

    A lower bound on ln p(x), not decreasing in K; K = 1 is the ELBO. The loss is -sum_n scale_n L_K(x_n)
    in nats, where the scale of a subsampled data plate multiplies the bound of each datum. (Pyro's
    `RenyiELBO` puts it inside the logarithm, which bounds nothing.) The guide's gradient loses its
    signal as K grows; see `DReG`.

    Inside a `BetaELBO` the weights are p(x|z) (p(z)/q(z|x))^beta. It is L_K at beta = 1 and no bound on
    ln p(x) for beta < 1; nor is it, for K > 1, the objective of any KL-weighted ELBO.
    https://arxiv.org/abs/1509.00519

    Args:
        num_particles: K >= 1.
        plate: name of the data plate; default: as the model declares, else "data".
        vectorize_particles: run all K in a particle plate; False for programs that do not broadcast.

    Raises:
        ValueError: at the first use, for programs without weights: a guide without rsample,
            enumerated sites, `bound_only` densities and undeclared factors, scales within a datum.

    Example:
        >>> IWAE(8)
        IWAE(num_particles=8)
    """

    def __init__(
        self, num_particles: int, *, plate: str | None = None, vectorize_particles: bool = True
    ) -> None:
        super().__init__(num_particles, plate=plate, vectorize_particles=vectorize_particles)

    def surrogate_and_value(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The negative bound, twice: its gradient is the one to train with."""
        value = -bound(self.scores(model, guide, args, kwargs))
        return value, value
