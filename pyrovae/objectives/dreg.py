"""The doubly reparameterised gradient of the importance-weighted bound."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..programs.particles.gradients import PathWeights
from .iwae import bound
from .objective import ParticleObjective


class DReG(ParticleObjective):
    """`IWAE`'s bound, its gradient doubly reparameterised (Tucker, Lawson, Gu & Maddison 2019).

    With v_k = w_k / sum_j w_j, in place of the score of q in the gradient of L_K,

        grad = sum_k v_k d ln p(x, z_k)|_z + sum_k v_k^2 d ln w_k/dz_k . dz_k,

    where d|_z acts on the density at fixed z. It has the mean of IWAE's gradient, and its signal does not
    fade as K grows. It is a statement on paths, not on names of parameters: one that model and guide
    share (a VampPrior's encoder) takes v through ln p and v^2 through the draws.
    Under a KL weight beta, v^2 becomes (1 - beta) v + beta v^2. The value reported is IWAE's.
    https://arxiv.org/abs/1810.04152

    A guide of several sites runs twice a step, so it must have no noise of its own (dropout).

    Args:
        num_particles: K >= 2 (with one draw it is `STL`).
        plate: name of the data plate; default: as the model declares, else "data".
        vectorize_particles: run all K in a particle plate; False for programs that do not broadcast.

    Raises:
        ValueError: at the first use, as `IWAE` and `STL`.

    Example:
        >>> DReG(8)
        DReG(num_particles=8)
    """

    def __init__(
        self, num_particles: int, *, plate: str | None = None, vectorize_particles: bool = True
    ) -> None:
        super().__init__(
            num_particles,
            at_least=2,
            instead="STL, which it is with one draw",
            plate=plate,
            vectorize_particles=vectorize_particles,
            fixed=True,
        )

    def surrogate_and_value(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """(surrogate of that gradient, negative importance-weighted bound)."""
        path = PathWeights()
        scores = self.scores(model, guide, args, kwargs, path)
        v = scores.log_weights.detach().softmax(0)
        # The model's density takes v, and what flows on from it into the draws this factor more.
        path.value = 1 - scores.beta + scores.beta * v
        terms = v * scores.joint - v * path.value * (scores.guide - scores.fixed)
        return -(scores.scale * terms.sum(0)).sum(), -bound(scores)
