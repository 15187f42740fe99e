"""Between data and the diffusion: how x is put on the axis of z, and p(x | z_0)."""

from __future__ import annotations

import math
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyrovae.distributions import Levels


class GreyLevels(nn.Module):
    """Values 0 ... levels - 1 at y = -1 ... 1, p(x_i | z_0) prop. to exp[-e^{-gamma_0} (z_0 / alpha_0 - y(x_i))^2 / 2].

    Binary data are two levels. A draw, not the argmax, is a draw of the model (Kingma et al. 2021,
    https://arxiv.org/abs/2107.00630).

    Args:
        levels: number of levels, at least 2.

    Raises:
        ValueError: fewer than 2 levels.
    """

    values: Tensor

    def __init__(self, levels: int) -> None:
        super().__init__()
        if levels < 2:
            raise ValueError(f"expected at least 2 levels, got {levels}")
        self.levels = levels
        self.register_buffer("values", torch.linspace(-1, 1, levels), persistent=False)

    def encode(self, x: Tensor) -> Tensor:
        """y in -1 ... 1, of the shape of x."""
        x = x if x.is_floating_point() else x.to(self.values.dtype)
        return x * (2 / (self.levels - 1)) - 1

    def forward(self, scaled: Tensor, gamma_0: float) -> Any:
        """p(x | z_0) for `scaled` = z_0 / alpha_0, of its shape, no event dims."""
        logits = -0.5 * math.exp(-gamma_0) * (scaled.unsqueeze(-1) - self.values).square()
        if self.levels == 2:  # binary data are floats 0 and 1
            return dist.Bernoulli(logits=logits[..., 1] - logits[..., 0])
        return Levels(logits)


class Continuous(nn.Module):
    """Real data as they are, p(x | z_0) = N(z_0 / alpha_0, e^{gamma_0})."""

    levels: int | None = None

    def encode(self, x: Tensor) -> Tensor:
        """x itself."""
        return x

    def forward(self, scaled: Tensor, gamma_0: float) -> Any:
        """p(x | z_0) for `scaled` = z_0 / alpha_0."""
        return dist.Normal(scaled, math.exp(gamma_0 / 2))
