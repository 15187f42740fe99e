"""Times of a diffusion, one for each datum, spread evenly over 0 ... 1."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor


class AntitheticUniform(TorchDistribution):
    """n times t_i = (u + i/n) mod 1 from ONE u ~ U(0, 1): each is uniform, together they leave no gap.

    The mean over a batch varies far less than that of independent times (Kingma et al. 2021, appendix I.1).
    `log_prob` is that of each alone, 0. Times are not independent between data: a sum of estimates is
    unbiased, its naive standard error is too large. https://arxiv.org/abs/2107.00630

    Args:
        batch_shape: of the times; all of them share one u.
        like: a tensor of the device and dtype.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, batch_shape: Any, like: Tensor) -> None:
        self.like = like
        super().__init__(Size(batch_shape), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> AntitheticUniform:
        """Returns the distribution with another batch shape."""
        return AntitheticUniform(batch_shape, self.like)

    def rsample(self, sample_shape: Any = Size()) -> Tensor:  # noqa: B008
        """Draws `[*sample, *batch]`."""
        shape = self._extended_shape(sample_shape)
        n = shape.numel()
        u = torch.rand((), dtype=self.like.dtype, device=self.like.device)
        steps = torch.arange(n, dtype=self.like.dtype, device=self.like.device)
        # Data come last and particles first: the particles of a datum lie far apart, too.
        return torch.remainder(u + steps / n, 1.0).reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """0 at each time."""
        return torch.zeros_like(value)
