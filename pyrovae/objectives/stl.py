"""Sticking the landing: the ELBO's gradient without the score of q."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .objective import ParticleObjective


class STL(ParticleObjective):
    """The ELBO, with the pathwise gradient alone (Roeder, Wu & Duvenaud 2017).

    For z = g(eps; phi) the gradient of ln q(z; phi) has two parts: through z, and the score
    d ln q(z; phi) / d phi at fixed z, whose mean is zero. The score is dropped: what is left is unbiased,
    and exactly zero where q is the posterior. Computed as -mean_k [ln w_k + ln q(stopped z_k; phi)], which
    cancels it for any guide and keeps the paths from one draw into another's distribution. A parameter that
    model and guide share (a VampPrior's encoder) keeps its gradient through ln p.
    The value reported is the ELBO's. https://arxiv.org/abs/1703.09194

    A guide of several sites runs twice a step, so it must have no noise of its own (dropout).

    Args:
        num_particles: draws averaged, >= 1.
        plate: name of the data plate; default: as the model declares, else "data".
        vectorize_particles: run all in a particle plate; False for programs that do not broadcast.

    Raises:
        ValueError: at the first use, as `IWAE`; and for guides that keep a Jacobian with parameters in a
            Delta or a factor of its own, where the score cannot be told apart.

    Example:
        >>> STL()
        STL(num_particles=1)
    """

    def __init__(
        self, num_particles: int = 1, *, plate: str | None = None, vectorize_particles: bool = True
    ) -> None:
        super().__init__(num_particles, plate=plate, vectorize_particles=vectorize_particles, fixed=True)

    def surrogate_and_value(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """(pathwise surrogate, negative ELBO)."""
        scores = self.scores(model, guide, args, kwargs)
        elbo = scores.log_weights
        surrogate = elbo + scores.fixed
        return -(scores.scale * surrogate.mean(0)).sum(), -(scores.scale * elbo.mean(0)).sum()
